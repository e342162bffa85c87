/**
 * A simulated catalog: the door `Catalog` in memory, with the crashes and errors of the real one.
 *
 * Commits apply in the order of their calls. One under way is visible to readers at once, or only when it is done: each commit
 * draws which. A crash keeps some of the commits under way, the earlier before the later, each whole. After an error the edits
 * hold or do not, by a draw, and every later commit fails, too, as LMDB's would; want of space alone harms nothing.
 */
import assert from 'node:assert/strict'
import { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import type { Catalog, CatalogEdit, Done } from '../../src/env.ts'

export type SimCatalogOptions = {
  /** Draws what the door leaves open. */
  readonly random?: SeededRandom
  /** `immediate`: done before `commit` returns. `queued`: each commit waits for a `step`. */
  readonly completions?: 'immediate' | 'queued'
  /** Called when a commit has been queued. */
  readonly onQueued?: () => void
}

type Rows = Map<string, Uint8Array>
type Pending = { readonly edits: readonly CatalogEdit[]; readonly done: Done; readonly isVisible: boolean }
type Fault = { left: number; times: number; readonly error: 'EIO' | 'ENOSPC' }

/** A copy of everything durable in a catalog. */
export type SimCatalogImage = ReadonlyMap<string, Uint8Array>

const pendingMax = 1024

export class SimCatalog implements Catalog {
  readonly #random: SeededRandom
  readonly #completions: 'immediate' | 'queued'
  readonly #onQueued: () => void
  #durable: Rows = new Map()
  /** What readers see where that is more than what is durable. */
  #visible: Rows | undefined
  #queue: Pending[] = []
  #faults: Fault[] = []
  #failure: SunwiseError | undefined
  /** Commits begun so far. */
  commits = 0

  constructor(options: SimCatalogOptions = {}) {
    this.#random = options.random ?? new SeededRandom('catalog')
    this.#completions = options.completions ?? 'immediate'
    this.#onQueued = options.onQueued ?? (() => {})
  }

  get(key: string): Uint8Array | undefined {
    checkKey(key)
    return (this.#visible ?? this.#durable).get(key)?.slice()
  }

  scan(prefix: string): [string, Uint8Array][] {
    const rows = [...(this.#visible ?? this.#durable)].filter(([key]) => key.startsWith(prefix))
    // The keys are ASCII, so the order of code units is the order of bytes.
    return rows.sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, value]) => [key, value.slice()])
  }

  commit(edits: readonly CatalogEdit[], done: Done): void {
    for (const { key } of edits) checkKey(key)
    if (this.#failure !== undefined) return done(this.#failure)
    if (this.#queue.length >= pendingMax) return done(new SunwiseError('OVERLOADED', `${pendingMax} commits wait`))
    this.commits++
    const copies = edits.map((edit) => (edit.op === 'put' ? { ...edit, value: edit.value.slice() } : edit))
    const error = this.#takeFault()
    if (error !== undefined) {
      if (error.code === 'DISK_FAILED') this.#failure = error
      const holds = error.code === 'DISK_FAILED' && this.#random.chance(1, 2)
      this.#enqueue({ edits: holds ? copies : [], done: () => done(error), isVisible: false })
    } else this.#enqueue({ edits: copies, done, isVisible: this.#random.chance(1, 2) })
    if (this.#completions === 'immediate') this.step()
    else this.#onQueued()
  }

  /** Ends the oldest commit under way; false if there is none. */
  step(): boolean {
    const next = this.#queue.shift()
    if (next === undefined) return false
    apply(this.#durable, next.edits)
    this.#refresh()
    next.done(undefined)
    return true
  }

  /** Ends all commits under way, and those that their callbacks begin. */
  drain(): void {
    while (this.step());
  }

  /** Commits under way. */
  get pending(): number {
    return this.#queue.length
  }

  /** Lets the `nth` commit from now (1: the next) and `times - 1` after it fail. */
  fail(fault: { readonly nth?: number; readonly times?: number; readonly error: 'EIO' | 'ENOSPC' }): void {
    this.#faults.push({ left: (fault.nth ?? 1) - 1, times: fault.times ?? 1, error: fault.error })
  }

  /** Ends the process or cuts the power: callbacks of commits under way never come; some of the commits hold. */
  crash(random: SeededRandom): void {
    const kept = random.below(this.#queue.length + 1)
    for (const { edits } of this.#queue.slice(0, kept)) apply(this.#durable, edits)
    this.#queue = []
    this.#visible = undefined
    this.#failure = undefined
    this.#faults = []
  }

  /** What is durable now. */
  snapshot(): SimCatalogImage {
    return new Map([...this.#durable].map(([key, value]) => [key, value.slice()]))
  }

  /** Puts an earlier state back, as from a backup. What is under way is lost. */
  restore(image: SimCatalogImage): void {
    this.#durable = new Map([...image].map(([key, value]) => [key, value.slice()]))
    this.#queue = []
    this.#visible = undefined
    this.#failure = undefined
  }

  #enqueue(pending: Pending): void {
    this.#queue.push(pending)
    this.#refresh()
  }

  /** A commit is visible early only together with all before it. */
  #refresh(): void {
    const visible = this.#queue.findLastIndex(({ isVisible }) => isVisible)
    if (visible === -1) {
      this.#visible = undefined
      return
    }
    this.#visible = new Map(this.#durable)
    for (const { edits } of this.#queue.slice(0, visible + 1)) apply(this.#visible, edits)
  }

  #takeFault(): SunwiseError | undefined {
    let taken: Fault | undefined
    for (const fault of this.#faults) {
      if (fault.left > 0) fault.left--
      else taken ??= fault
    }
    if (taken === undefined) return undefined
    if (--taken.times === 0) this.#faults.splice(this.#faults.indexOf(taken), 1)
    return taken.error === 'ENOSPC'
      ? new SunwiseError('DISK_FULL', 'Cannot commit to the catalog: no space is left (ENOSPC)')
      : new SunwiseError('DISK_FAILED', 'Cannot commit to the catalog: i/o error (EIO)')
  }
}

function checkKey(key: string): void {
  assert.match(key, /^[!-~ ]{1,500}$/)
  assert.ok(!key.startsWith('#'))
}

function apply(rows: Rows, edits: readonly CatalogEdit[]): void {
  for (const edit of edits) {
    if (edit.op === 'put') rows.set(edit.key, edit.value)
    else rows.delete(edit.key)
  }
}
