/**
 * What clients did and saw, and what must hold of it whatever happened meanwhile. Independent of the product: it knows values, and which
 * values a writer had seen; no vectors, no dots, no merge.
 *
 * Every put has a value of its own. A write with the context of a read *covers* what that read showed, and what those writes covered. A write
 * without one replaces what its coordinator sees: it *may* cover anything that began before it ended.
 *
 *   lost write     an acknowledged value is gone, and no write may have covered it
 *   resurrection   a value is there although an acknowledged write covered it
 *   invented       a value that nobody wrote, or whose write was said to have done nothing
 *                  (of a read of a quorum: before it began)
 *   stale read     a read of a quorum misses what was acknowledged, or shown by such a read, before it began
 */

export type OperationKind = 'put' | 'delete' | 'get'

export type WriteRecord = {
  readonly id: number
  readonly key: string
  readonly kind: 'put' | 'delete'
  /** Writes that its context covers; undefined: it had none. */
  readonly seen: ReadonlySet<number> | undefined
  readonly beganMs: number
  /** Infinity: it may take effect at any time. */
  endedMs: number
  outcome: 'acked' | 'none' | 'maybe'
}

export type ReadRecord = {
  readonly key: string
  readonly values: readonly number[]
  readonly beganMs: number
  readonly endedMs: number
}

/** What a whole list showed of a key between its first page and its last: values, or only that it is there. */
export type ListRecord = {
  readonly key: string
  readonly shown: readonly number[] | 'present'
  readonly beganMs: number
  readonly endedMs: number
}

export class HistoryViolation extends Error {
  override name = 'HistoryViolation'
}

export class History {
  /** By id, from 1 on. */
  readonly writes: WriteRecord[] = []
  readonly reads: ReadRecord[] = []
  readonly lists: ListRecord[] = []

  /** Begins a write; its id is its value. */
  begin(key: string, kind: 'put' | 'delete', seen: ReadonlySet<number> | undefined, nowMs: number): WriteRecord {
    const id = this.writes.length + 1
    const record: WriteRecord = { id, key, kind, seen, beganMs: nowMs, endedMs: Infinity, outcome: 'maybe' }
    this.writes.push(record)
    return record
  }

  /** What a context covers that came with these values: they, and what their writers had seen. */
  coveredBy(values: readonly number[]): ReadonlySet<number> {
    const covered = new Set<number>()
    const queue = [...values]
    for (;;) {
      const id = queue.pop()
      if (id === undefined) return covered
      if (covered.has(id)) continue
      covered.add(id)
      queue.push(...(this.writes[id - 1]?.seen ?? []))
    }
  }

  /** Checks what all replicas hold in the end, by key, and every read on the way. */
  check(final: ReadonlyMap<string, readonly number[]>, readsAreStrict: boolean): void {
    const byKey = Map.groupBy(this.writes, ({ key }) => key)
    for (const [key, values] of final) {
      this.#checkInvented(key, values, Number.POSITIVE_INFINITY, 'in the end')
      for (const id of values) this.#checkResurrection(byKey.get(key) ?? [], id)
    }
    for (const [key, writes] of byKey) {
      const values = final.get(key) ?? []
      for (const write of writes) {
        if (write.kind !== 'put' || write.outcome !== 'acked' || values.includes(write.id)) continue
        if (this.#mayBeCovered(writes, write, Number.POSITIVE_INFINITY)) continue
        throw new HistoryViolation(
          `lost write: value ${write.id} of ${key}, acknowledged at ${write.endedMs.toFixed(1)} ms`,
        )
      }
    }
    const reads = Map.groupBy(this.reads, ({ key }) => key)
    for (const [key, ofKey] of reads) {
      for (const read of ofKey) this.#checkInvented(key, read.values, read.endedMs, `at ${read.endedMs.toFixed(1)} ms`)
      if (readsAreStrict) this.#checkReads(key, byKey.get(key) ?? [], ofKey)
    }
    for (const list of this.lists) this.#checkList(byKey.get(list.key) ?? [], list, readsAreStrict)
  }

  /** A list promises of a key what a read does; but it repairs nothing, so that a later one may show less of a write that failed. */
  #checkList(writes: readonly WriteRecord[], { key, shown, beganMs, endedMs }: ListRecord, isStrict: boolean): void {
    if (shown === 'present') {
      const mayBeThere = writes.some(({ id, kind, outcome, beganMs: writeBeganMs }) => {
        const isCovered =
          isStrict && writes.some((by) => by.seen?.has(id) && by.outcome === 'acked' && by.endedMs < beganMs)
        return kind === 'put' && outcome !== 'none' && writeBeganMs <= endedMs && !isCovered
      })
      if (!mayBeThere) throw new HistoryViolation(`list: ${key} at ${beganMs.toFixed(1)} ms, which has no value`)
      return
    }
    this.#checkInvented(key, shown, endedMs, `in a list at ${beganMs.toFixed(1)} ms`)
    if (isStrict) this.#checkRead(key, writes, { key, values: shown, beganMs, endedMs })
  }

  #checkInvented(key: string, values: readonly number[], untilMs: number, when: string): void {
    for (const id of values) {
      const write = this.writes[id - 1]
      if (write === undefined || write.key !== key || write.kind !== 'put' || write.beganMs > untilMs) {
        throw new HistoryViolation(`invented: ${key} showed ${id} ${when}`)
      }
      if (write.outcome === 'none') {
        throw new HistoryViolation(`invented: ${key} showed ${id} ${when}, whose write had failed with outcome none`)
      }
    }
  }

  /** A value that is there in the end must not be covered by a write that was acknowledged. */
  #checkResurrection(writes: readonly WriteRecord[], id: number): void {
    for (const { seen, outcome, kind, id: by, key } of writes) {
      if (outcome !== 'acked' || by === id || !seen?.has(id)) continue
      throw new HistoryViolation(`resurrection: value ${id} of ${key}, which ${kind} ${by} had replaced`)
    }
  }

  /** Whether some write that began before `untilMs` covers it, or may have replaced it unseen. */
  #mayBeCovered(writes: readonly WriteRecord[], lost: WriteRecord, untilMs: number): boolean {
    return writes.some((write) => {
      if (write === lost || write.outcome === 'none' || write.beganMs > untilMs) return false
      return write.seen === undefined ? write.endedMs >= lost.beganMs : write.seen.has(lost.id)
    })
  }

  #checkReads(key: string, writes: readonly WriteRecord[], reads: readonly ReadRecord[]): void {
    for (const read of reads) {
      this.#checkRead(key, writes, read)
      for (const earlier of reads) {
        if (earlier.endedMs >= read.beganMs) continue
        for (const id of earlier.values) {
          const write = this.writes[id - 1]!
          if (read.values.includes(id) || this.#mayBeCovered(writes, write, read.endedMs)) continue
          throw new HistoryViolation(
            `stale read: ${key} at ${read.beganMs.toFixed(1)} ms without ${id}, which a read had shown at ${earlier.endedMs.toFixed(1)} ms`,
          )
        }
      }
    }
  }

  #checkRead(key: string, writes: readonly WriteRecord[], read: ReadRecord): void {
    for (const write of writes) {
      if (write.kind !== 'put' || write.outcome !== 'acked' || write.endedMs >= read.beganMs) continue
      if (read.values.includes(write.id) || this.#mayBeCovered(writes, write, read.endedMs)) continue
      throw new HistoryViolation(
        `stale read: ${key} at ${read.beganMs.toFixed(1)} ms without ${write.id}, acknowledged at ${write.endedMs.toFixed(1)} ms`,
      )
    }
    for (const id of read.values) {
      const by = writes.find(
        (write) => write.outcome === 'acked' && write.endedMs < read.beganMs && write.seen?.has(id) === true,
      )
      if (by === undefined) continue
      throw new HistoryViolation(
        `resurrection: ${key} at ${read.beganMs.toFixed(1)} ms with ${id}, which ${by.kind} ${by.id} had replaced at ${by.endedMs.toFixed(1)} ms`,
      )
    }
  }
}
