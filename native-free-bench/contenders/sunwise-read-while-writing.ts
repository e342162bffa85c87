/**
 * Sunwise reading random keys with `readInto` while this same thread puts random keys at a steady rate, enough for flushes and
 * compactions to run all the time. Either it reads as fast as it can, and each read is timed by itself (E6); or reads come at a
 * steady rate of their own and are timed from when they were meant to start (L1), so that nothing which holds the thread up is left
 * out. Between slices of work the event loop turns, as in an application; that time counts.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Histogram } from '../../src/base/histogram.ts'
import { ControlWord } from '../../src/storage/shard-memory.ts'
import type { Measurement } from '../case.ts'
import type { Hosted } from '../isolate.ts'
import { KeySet, keyBytes, Sequence, writeKey } from '../key-set.ts'
import { countFinds, finderCounts } from './finder-counts.ts'
import { TableStore } from './table-store.ts'

type Options = {
  readonly scratch: string
  readonly keys: number
  readonly memoryBytes: number
  readonly valueBytes: number
  readonly roundMs: number
  readonly putsPerSecond: number
  /**
   * Reads and puts both come at this share of the most that the store reaches: of `putsPerSecond`, and of the reads beside those.
   * Undefined: reads go as fast as they can.
   */
  readonly load?: number
}

/** Slice of reads between two turns of the event loop. */
const sliceMs = 0.2
const putsWaitingMax = 1024
const fillInFlight = 64
/** Reads that may wait for the disk beside others. */
const asidesMax = 256

export async function open(options: Options): Promise<Hosted> {
  const { keys, valueBytes, roundMs, putsPerSecond, load } = options
  const filled = await TableStore.open(options)
  await filled.fill({ keys, operations: keys, inFlight: fillInFlight, batch: 1, seed: 1 })
  await filled.settled()
  const { store } = filled
  countFinds()
  const set = new KeySet(keys, 11)
  const probes = set.probeKeys()
  const key = new Uint8Array(keyBytes)
  const into = new Uint8Array(valueBytes)
  const sequence = new Sequence(17)
  const histogram = new Histogram()
  let probe = 0
  let waiting = 0
  let refusal: unknown

  /** Undefined where it is answered already. */
  const read = (): Promise<unknown> | undefined => {
    const at = probe * keyBytes
    for (let position = 0; position < keyBytes; position++) key[position] = probes[at + position]!
    const length = store.readInto(key, into)
    if (++probe === set.probeCount) probe = 0
    return typeof length === 'number' ? undefined : length
  }
  /** Reads that were not answered at once, since the disk is slow. */
  let asides = 0
  let asidesOfRound = 0
  /** One read, timed from `fromMs` to its answer. */
  const timed = (fromMs: number): void => {
    const aside = read()
    if (aside === undefined) {
      histogram.record((performance.now() - fromMs) * 1e6)
      return
    }
    asides++
    asidesOfRound++
    aside.then(
      () => {
        asides--
        histogram.record((performance.now() - fromMs) * 1e6)
      },
      (error: unknown) => {
        refusal = error
      },
    )
  }
  const put = (): void => {
    const bytes = Buffer.allocUnsafe(keyBytes)
    writeKey(sequence.below(keys), bytes, 0)
    waiting++
    store.put(bytes, filled.nextValue()).then(
      () => {
        waiting--
      },
      (error: unknown) => {
        refusal = error
      },
    )
  }
  /** One round; without `readsPerMs` reads go as fast as they can. */
  const round = async (putsPerMs: number, readsPerMs?: number): Promise<Measurement> => {
    histogram.reset()
    asidesOfRound = 0
    const { blockReads } = finderCounts
    const flushes = filled.total(ControlWord.flushes)
    const compactions = filled.total(ControlWord.compactions)
    let reads = 0
    let puts = 0
    const start = performance.now()
    let now = start
    while (now - start < roundMs) {
      if (asides >= asidesMax) {
        await nextTurn()
        now = performance.now()
        continue
      }
      const putsDue = Math.floor((now - start) * putsPerMs)
      // Where the store makes writers wait, the rate is not held: the count of puts says so.
      while (puts < putsDue && waiting < putsWaitingMax) {
        put()
        puts++
      }
      const sliceEnd = now + sliceMs
      if (readsPerMs === undefined) {
        while (now < sliceEnd) {
          timed(now)
          now = performance.now()
          reads++
        }
      } else {
        for (now = performance.now(); now < sliceEnd; now = performance.now()) {
          const meant = start + reads / readsPerMs
          if (meant > now) continue
          timed(meant)
          reads++
        }
      }
      await nextTurn()
      if (refusal !== undefined) throw refusal
      now = performance.now()
    }
    const elapsedMs = now - start
    while (waiting > 0 || asides > 0) {
      await nextTurn()
      if (refusal !== undefined) throw refusal
    }
    const counts = {
      'p50 us': histogram.percentile(50) / 1000,
      'p99 us': histogram.percentile(99) / 1000,
      'p99.9 us': histogram.percentile(99.9) / 1000,
      'longest read us': histogram.max() / 1000,
      'reads/s': (reads * 1000) / elapsedMs,
      'puts/s': (puts * 1000) / elapsedMs,
      'preads/get': (finderCounts.blockReads - blockReads) / reads,
      'asked aside %': (100 * asidesOfRound) / reads,
      'flushes in the round': filled.total(ControlWord.flushes) - flushes,
      'compactions in the round': filled.total(ControlWord.compactions) - compactions,
      runs: filled.total(ControlWord.tableRuns),
    }
    const value = readsPerMs === undefined ? counts['reads/s'] : counts['p99 us'] / 1000
    return { value, operations: reads, counts }
  }
  const putsPerMs = putsPerSecond / 1000
  /** Measured by the first run, when all other contenders are at rest. */
  let readsPerMs: number | undefined
  const run = async (): Promise<Measurement> => {
    if (load === undefined) return round(putsPerMs)
    readsPerMs ??= (load * (await round(putsPerMs)).value) / 1000
    return round(load * putsPerMs, readsPerMs)
  }
  return { run, settled: () => filled.settled(), close: () => filled.close() }
}
