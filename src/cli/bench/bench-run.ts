/**
 * Runs one workload against an open store: so many loops at once, each taking the next operation when its last is done. Reads are
 * synchronous on this thread, as an application would make them; writes are awaited. A read must find the value that some write of its
 * record wrote, and must find one if a write of this command was acknowledged before; anything else ends the run.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { SunwiseError } from '../../base/errors.ts'
import { Histogram } from '../../base/histogram.ts'
import { SeededRandom } from '../../base/seeded-random.ts'
import type { Store } from '../../index.ts'
import type { BenchRecords } from './bench-records.ts'
import { type KeyChooser, LatestChooser, ScrambledChooser, UniformChooser } from './key-chooser.ts'
import { kindAt, type OperationKind, type Workload } from './workload.ts'

export type BenchSettings = {
  readonly num: number
  readonly concurrency: number
  readonly seed: number
}

/** What a benchmark needs of a store. */
export type BenchedStore = Pick<Store, 'readInto' | 'put' | 'list'>

/** What one benchmark gave. */
export type BenchResult = {
  readonly name: string
  readonly operations: number
  readonly elapsedMs: number
  /** Bytes of keys and values that were read or written. */
  readonly bytes: number
  readonly reads: number
  readonly found: number
  /** Nanoseconds of each operation, from its call to its answer. */
  readonly histogram: Histogram
}

/** How far a run is, for those who watch it. */
export type BenchProgress = { done: number; bytes: number }

/** Records of a store as this command knows them: how many numbers are taken, and which are surely there. */
export class KnownRecords {
  count: number
  #written: Uint8Array

  constructor(count: number) {
    this.count = count
    this.#written = new Uint8Array((count >>> 3) + 1)
  }

  /** Notes an acknowledged write. */
  add(record: number): void {
    const byte = record >>> 3
    if (byte >= this.#written.length) {
      const larger = new Uint8Array(2 * byte + 1)
      larger.set(this.#written)
      this.#written = larger
    }
    this.#written[byte]! |= 1 << (record & 7)
  }

  has(record: number): boolean {
    return ((this.#written[record >>> 3] ?? 0) & (1 << (record & 7))) !== 0
  }
}

const scanKeysMax = 100
/** So long reads go on before other loops and the terminal get their turn. */
const sliceMs = 2
/** Puts under way of the writer beside readers. */
const writerPuts = 64

export class BenchRun {
  readonly #store: BenchedStore
  readonly #workload: Workload
  readonly #records: BenchRecords
  readonly #known: KnownRecords
  readonly #settings: BenchSettings
  readonly #random: SeededRandom
  readonly #chooser: KeyChooser
  readonly #histogram = new Histogram()
  readonly #key: Uint8Array
  /** Buffers of reads that are done. */
  readonly #intos: Buffer[] = []
  /** Where values go that ought not to be. */
  readonly #unwanted: Uint8Array
  readonly #operations: number
  readonly #progress: BenchProgress
  #started = 0
  #isDone = false
  #nextRecord = 0
  #reads = 0
  #found = 0
  #sliceEnd = 0

  constructor(
    store: BenchedStore,
    workload: Workload,
    records: BenchRecords,
    known: KnownRecords,
    settings: BenchSettings,
    progress: BenchProgress,
  ) {
    this.#store = store
    this.#workload = workload
    this.#records = records
    this.#known = known
    this.#settings = settings
    this.#progress = progress
    this.#operations = Math.max(1, Math.round(settings.num * workload.share))
    this.#random = new SeededRandom(`${settings.seed} ${workload.name}`)
    const draws = new SeededRandom(`${settings.seed} ${workload.name} records`)
    this.#chooser =
      workload.records === 'scrambled'
        ? new ScrambledChooser(draws, known.count)
        : workload.records === 'latest'
          ? new LatestChooser(draws, known.count)
          : new UniformChooser(draws, known.count)
    this.#key = new Uint8Array(records.keySize)
    this.#unwanted = new Uint8Array(records.valueSize)
  }

  /** @throws INTERNAL where a read is wrong, and whatever a write is refused with. */
  async run(): Promise<BenchResult> {
    const start = performance.now()
    this.#sliceEnd = start + sliceMs
    const loops = Array.from({ length: this.#settings.concurrency }, () => this.#loop())
    const writer = this.#workload.hasWriter ? this.#write() : undefined
    try {
      await Promise.all(loops)
    } finally {
      this.#isDone = true
    }
    const elapsedMs = performance.now() - start
    await writer
    return {
      name: this.#workload.name,
      operations: this.#operations,
      elapsedMs,
      bytes: this.#progress.bytes,
      reads: this.#reads,
      found: this.#found,
      histogram: this.#histogram,
    }
  }

  async #loop(): Promise<void> {
    const { mix } = this.#workload
    while (this.#started < this.#operations && !this.#isDone) {
      this.#started++
      const kind = kindAt(mix, this.#random.u32() / 2 ** 32)
      const start = performance.now()
      const waiting = this.#operate(kind)
      if (waiting !== undefined) await waiting
      const now = performance.now()
      this.#histogram.record((now - start) * 1e6)
      this.#progress.done++
      if (now < this.#sliceEnd) continue
      await nextTurn()
      this.#sliceEnd = performance.now() + sliceMs
    }
  }

  /** The writer beside the readers, until they are done: it gets this thread's turn only between slices of reads, so it puts many at once. */
  async #write(): Promise<void> {
    while (!this.#isDone) {
      const puts = Array.from({ length: writerPuts }, () => this.#put(this.#random.below(this.#known.count)))
      await Promise.all(puts)
    }
  }

  /** Undefined where it is done already. */
  #operate(kind: OperationKind): Promise<void> | undefined {
    switch (kind) {
      case 'read':
        return this.#read(this.#chooser.next())
      case 'missing':
        return this.#readMissing(this.#chooser.next())
      case 'update':
        return this.#put(this.#workload.records === 'sequence' ? this.#nextRecord++ : this.#chooser.next())
      case 'insert':
        return this.#insert()
      case 'modify': {
        const record = this.#chooser.next()
        const reading = this.#read(record)
        return reading === undefined ? this.#put(record) : reading.then(() => this.#put(record))
      }
      case 'scan':
        return this.#scan(this.#chooser.next(), 1 + this.#random.below(scanKeysMax))
      default:
        return kind satisfies never
    }
  }

  /** Undefined where it is done already. */
  #read(record: number): Promise<void> | undefined {
    const mustBeThere = this.#known.has(record)
    this.#records.writeKey(record, this.#key)
    const into = this.#intos.pop() ?? Buffer.from(new ArrayBuffer((this.#records.valueSize + 7) & ~7))
    const length = this.#store.readInto(this.#key, into)
    if (typeof length === 'number') {
      this.#take(record, mustBeThere, length, into)
      return undefined
    }
    return length.then((known) => this.#take(record, mustBeThere, known, into))
  }

  #take(record: number, mustBeThere: boolean, length: number, into: Buffer): void {
    this.#reads++
    if (length === -1) {
      if (mustBeThere) throw this.#wrong(record, 'is gone although its write was acknowledged')
      this.#intos.push(into)
      return
    }
    this.#found++
    this.#progress.bytes += this.#key.length + this.#records.valueSize
    const fault = this.#records.fault(record, into, length < 0 ? -2 - length : length)
    if (fault !== undefined) throw this.#wrong(record, fault)
    this.#intos.push(into)
  }

  /** Reads a key with one byte more than any that is written. */
  #readMissing(record: number): Promise<void> | undefined {
    const key = Buffer.allocUnsafe(this.#key.length + 1)
    this.#records.writeKey(record, key)
    key[this.#key.length] = 46
    this.#reads++
    const judge = (length: number): void => {
      if (length !== -1) throw this.#wrong(record, 'was found under a key nobody wrote')
    }
    const length = this.#store.readInto(key, this.#unwanted)
    if (typeof length !== 'number') return length.then(judge)
    judge(length)
    return undefined
  }

  async #put(record: number): Promise<void> {
    const value = this.#records.value(record, this.#random.u32())
    const { isSynced } = this.#workload
    const key = this.#records.key(record)
    if (isSynced) await this.#store.put(key, value, { durability: 'sync' })
    else await this.#store.put(key, value)
    this.#known.add(record)
    this.#progress.bytes += key.length + value.length
  }

  async #insert(): Promise<void> {
    const record = this.#known.count++
    await this.#put(record)
    // Chosen only once it is there.
    this.#chooser.grow(record + 1)
  }

  /** Lists up to `length` keys that share all but the last two digits with a record's: a store ordered by hash knows no nearer ones. */
  async #scan(record: number, length: number): Promise<void> {
    const prefix = this.#records.key(record).subarray(0, this.#records.keySize - 2)
    let seen = 0
    for await (const { key, value } of this.#store.list({ prefix })) {
      const listed = Number(Buffer.from(key).toString('latin1'))
      if (value === undefined) throw this.#wrong(listed, 'was listed without its value')
      const fault = this.#records.fault(listed, Buffer.from(value.buffer, value.byteOffset, value.length), value.length)
      if (fault !== undefined) throw this.#wrong(listed, fault)
      this.#progress.bytes += key.length + value.length
      if (++seen === length) break
    }
    this.#reads++
    if (seen > 0) this.#found++
    else if (this.#known.has(record)) throw this.#wrong(record, 'was not listed although its write was acknowledged')
  }

  #wrong(record: number, what: string): SunwiseError {
    const { name } = this.#workload
    return new SunwiseError(
      'INTERNAL',
      `${name}: the value of record ${record} ${what}; if this command wrote it with the same --value-size, the store is at fault`,
    )
  }
}
