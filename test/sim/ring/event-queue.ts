/** What is still to happen in a simulation, by time; what was planned first comes first among equals. A binary heap. */

type Event = { readonly atMs: number; readonly sequence: number; readonly run: () => void }

export class EventQueue {
  readonly #heap: Event[] = []
  #sequence = 0
  /** Simulated time: that of the event which runs now. */
  nowMs = 0
  /** Events that ran. */
  ran = 0

  get size(): number {
    return this.#heap.length
  }

  /** Plans `run` for `delayMs` from now. */
  after(delayMs: number, run: () => void): void {
    const heap = this.#heap
    let place = heap.length
    const event = { atMs: this.nowMs + delayMs, sequence: this.#sequence++, run }
    heap.push(event)
    while (place > 0) {
      const parent = (place - 1) >> 1
      if (!isBefore(event, heap[parent]!)) break
      heap[place] = heap[parent]!
      place = parent
    }
    heap[place] = event
  }

  /** Runs the next event if it comes at `untilMs` or before. */
  step(untilMs: number): boolean {
    const heap = this.#heap
    const first = heap[0]
    if (first === undefined || first.atMs > untilMs) return false
    const last = heap.pop()!
    if (heap.length > 0) this.#sink(last)
    this.nowMs = first.atMs
    this.ran++
    first.run()
    return true
  }

  #sink(event: Event): void {
    const heap = this.#heap
    let place = 0
    for (;;) {
      let child = 2 * place + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
      if (!isBefore(heap[child]!, event)) break
      heap[place] = heap[child]!
      place = child
    }
    heap[place] = event
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.sequence < b.sequence)
}
