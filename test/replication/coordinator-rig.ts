/** A coordinator alone: the frames that it sends lie here until a test answers them, or does not. */
import assert from 'node:assert/strict'
import { type ErrorCode, errorNumberOf, type Outcome, OutcomeNumber } from '../../src/base/errors.ts'
import type { FrameTarget } from '../../src/env.ts'
import { ShardCoordinator } from '../../src/replication/coordinator.ts'
import { LocalReplica } from '../../src/replication/local-replica.ts'
import { FrameKind } from '../../src/shard/command.ts'
import { ReadResult, type ResidentReader } from '../../src/storage/resident-reader.ts'
import { SimClock } from '../sim/sim-clock.ts'

export type SentFrame = { readonly shard: number; readonly u8: Uint8Array; readonly i32: Int32Array }

export class CoordinatorRig {
  readonly clock = new SimClock()
  readonly coordinator: ShardCoordinator
  readonly replica: LocalReplica
  /** Frames that were sent, oldest first. */
  readonly sent: SentFrame[] = []
  readonly down = new Set<number>()
  isQueueFull = false
  published = 0
  /** What every read of memory finds. */
  readResult: number = ReadResult.absent
  #reserved: SentFrame | undefined

  constructor(count = 2) {
    const reader = {
      isUp: true,
      neededBytes: 0,
      mayHoldUnsynced: false,
      actors: { lowOf: () => 1, highOf: () => 2 },
      readRecord: () => this.readResult,
    }
    const options = {
      clock: this.clock,
      shards: {
        count,
        begin: (shard: number, bytes: number): FrameTarget | undefined => {
          assert.equal(this.#reserved, undefined, 'One frame is begun at a time')
          assert.equal(this.down.has(shard), false, 'Nothing is sent to a shard that is down')
          if (this.isQueueFull) return undefined
          const buffer = new ArrayBuffer((bytes + 3) & ~3)
          const u8 = new Uint8Array(buffer).fill(0xa5)
          this.#reserved = { shard, u8, i32: new Int32Array(buffer) }
          return { u8, i32: this.#reserved.i32, start: 0 }
        },
        commit: (shard: number) => {
          assert.equal(this.#reserved?.shard, shard)
          this.sent.push(this.#reserved!)
          this.#reserved = undefined
        },
        publish: () => {
          this.published++
        },
        isUp: (shard: number) => !this.down.has(shard),
      },
      readerOf: () => reader as unknown as ResidentReader,
      hashSeed: { low: 5, high: 6 },
      clusterKey: new Uint8Array(16).fill(3),
      durability: 'sync',
      mayHoldUnsynced: () => false,
    } as const
    this.coordinator = new ShardCoordinator(options)
    this.replica = new LocalReplica(options)
  }

  /** A reply to a write: by default one live version of actor (1, 2) with counter 9, on stable storage. */
  answerWrite(
    frame: SentFrame,
    {
      error = undefined as ErrorCode | undefined,
      outcome = 'none' as Outcome,
      isPresent = true,
      isDurable = true,
      siblings = 1,
    } = {},
  ): void {
    const i32 = new Int32Array(12)
    const number = error === undefined ? 0 : errorNumberOf.get(error)!
    i32[0] = FrameKind.writeReply | (OutcomeNumber[outcome] << 8) | (number << 16)
    i32[1] = frame.i32[1]!
    i32[2] = siblings | (isDurable ? 1 << 16 : 0) | (isPresent ? 1 << 24 : 0)
    i32[3] = isPresent ? 1 : 0
    i32.set([1, 2, 9, 0], 8)
    this.coordinator.receive(new Uint8Array(i32.buffer), i32, 0)
  }

  /** A reply to a read or list without records. */
  answerRead(frame: SentFrame, error?: ErrorCode, next = 0): void {
    const i32 = new Int32Array(4)
    i32[0] = FrameKind.recordsReply | ((error === undefined ? 0 : errorNumberOf.get(error)!) << 16)
    i32[1] = frame.i32[1]!
    i32[3] = next
    this.coordinator.receive(new Uint8Array(i32.buffer), i32, 0)
  }

  /** Time passes, and deadlines are judged. */
  pass(durationMs: number): void {
    this.clock.advance(durationMs)
    this.coordinator.tick()
  }
}
