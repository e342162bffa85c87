/**
 * Causal stability: which writes of a partition have reached every replica of it. A tombstone that all have, with all that it replaced, has done
 * its work: a copy of what it deleted can come only late, and every clock knows it. Never by age: a replica that is away holds it back.
 *
 * The same of versions with an expiry: once every replica's own clock says that one is over, and every replica has it, each may forget it.
 *
 * It only grows: what one replica has found out holds for ever, so replicas that compare take over the greater of what each knows. Both count
 * the same in their trees then.
 *
 *   stable, little-endian:     0 u64 expiredBeforeMs   8 a clock of bases alone (partition-clock.ts)
 *   attested, little-endian:   0 u64 nowMs   8 u32 clockBytes | clock (none: not all is on stable storage just now) | stable
 */
import { ByteReader, ByteWriter } from '../base/bytes.ts'
import { type ActorIndexer, type ClockFault, PartitionClock } from './partition-clock.ts'
import { type ActorTable, counterOf, descends, joinVectors, type Vector } from './version-set.ts'

export type Stable = {
  /** Every replica has all writes up to here. */
  readonly vector: Vector
  /** On every replica it was later than this, with a grace: what expires before, and is in the vector, is over everywhere. */
  readonly expiredBeforeMs: number
}

export const nothingStable: Stable = Object.freeze({ vector: Object.freeze([]), expiredBeforeMs: 0 })

/** Moments of expiry are judged in steps, so that what is known changes seldom. */
const expiryStepMs = 60_000

/** What one replica says of itself. */
export type Attested = {
  /** What it has on stable storage. */
  readonly clock: PartitionClock
  /** Its wall clock. */
  readonly nowMs: number
}

/** What holds where these are all replicas. */
export function stableOf(replicas: readonly Attested[], graceMs: number): Stable {
  const [first, ...others] = replicas.map(({ clock }) => clock.bases())
  if (first === undefined) return nothingStable
  const vector = first
    .map(({ actor, counter }) => ({
      actor,
      counter: others.reduce((least, bases) => Math.min(least, counterOf(bases, actor)), counter),
    }))
    .filter(({ counter }) => counter > 0)
  const earliestMs = Math.min(...replicas.map(({ nowMs }) => nowMs)) - graceMs
  return { vector, expiredBeforeMs: Math.max(0, Math.floor(earliestMs / expiryStepMs) * expiryStepMs) }
}

/** What both know together; `a` itself where `b` knows no more. */
export function joinStable(a: Stable, b: Stable): Stable {
  if (a.expiredBeforeMs >= b.expiredBeforeMs && descends(a.vector, b.vector)) return a
  return {
    vector: joinVectors(a.vector, b.vector),
    expiredBeforeMs: Math.max(a.expiredBeforeMs, b.expiredBeforeMs),
  }
}

export function encodeStable({ vector, expiredBeforeMs }: Stable, actors: ActorTable): Uint8Array {
  const clock = new PartitionClock()
  for (const { actor, counter } of vector) clock.raiseBase(actor, counter)
  const writer = new ByteWriter(64)
  writer.u64(expiredBeforeMs)
  writer.raw(clock.encode(actors))
  return writer.toBytes()
}

/** What `encodeStable` wrote, or why it is none; never throws. */
export function decodeStable(bytes: Uint8Array, actorIndex: ActorIndexer): Stable | ClockFault {
  const reader = new ByteReader(bytes)
  const expiredBeforeMs = reader.u64()
  if (reader.failed) return 'length'
  const clock = PartitionClock.decode(bytes, 8, bytes.length, actorIndex)
  return typeof clock === 'string' ? clock : { vector: clock.bases(), expiredBeforeMs }
}

/** What a replica says of itself, and what it knows to be stable, as it travels. */
export function encodeAttested(clock: Uint8Array, nowMs: number, stable: Uint8Array): Uint8Array {
  const writer = new ByteWriter(64)
  writer.u64(nowMs)
  writer.bytes(clock)
  writer.raw(stable)
  return writer.toBytes()
}

/** The parts that `encodeAttested` put together; `attested` is undefined where not all was on stable storage. */
export function decodeAttested(
  bytes: Uint8Array,
  actorIndex: ActorIndexer,
): { readonly attested: Attested | undefined; readonly stable: Uint8Array } | ClockFault {
  const reader = new ByteReader(bytes)
  const nowMs = reader.u64()
  const clockBytes = reader.bytes()
  const stable = reader.raw(reader.remaining)
  if (reader.failed) return 'length'
  if (clockBytes.length === 0) return { attested: undefined, stable }
  const clock = PartitionClock.decode(clockBytes, 0, clockBytes.length, actorIndex)
  return typeof clock === 'string' ? clock : { attested: { clock, nowMs }, stable }
}
