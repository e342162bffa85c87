/**
 * The coordinator of a worker's front in a member of a cluster: it has the node thread do what is asked, over the ring between the two.
 * The node thread answers everything before its deadline; an answer that finds no room is missed here a little later.
 */
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { Clock } from '../env.ts'
import { PendingTable } from '../replication/pending.ts'
import type {
  BatchOperation,
  BatchResult,
  Bucket,
  Callback,
  Coordinator,
  ListOptions,
  ListPage,
  ReadAnswer,
  ReadOptions,
  WriteAnswer,
  WriteOptions,
} from '../replication/requests.ts'
import { FrameKind } from '../shard/command.ts'
import {
  type ClusterChange,
  type ClusterQuestion,
  decodeAnswer,
  encodeRequest,
  type MemberRequest,
  memberFrameBytes,
  readMemberFrame,
  writeMemberFrame,
} from './member-frames.ts'
import type { ThreadLinks } from './thread-links.ts'

/** Thread number of the node thread of a member. */
export const memberThread = 0

/** How much longer than its deadline a request is waited for here. */
const graceMs = 2000
/** A change of the cluster takes several rounds between its voters. */
const changeMs = 60_000

type Pending = { readonly isWrite: boolean; readonly done: Callback<unknown> }

export class MemberClient implements Coordinator {
  readonly #links: Pick<ThreadLinks, 'beginTo' | 'commitTo'>
  readonly #clock: Clock
  readonly #pending = new PendingTable<Pending>()

  constructor(links: Pick<ThreadLinks, 'beginTo' | 'commitTo'>, clock: Clock) {
    this.#links = links
    this.#clock = clock
  }

  /** Requests under way. */
  get pendingCount(): number {
    return this.#pending.count
  }

  get(bucket: Bucket, key: Uint8Array, options: ReadOptions, done: Callback<ReadAnswer>): void {
    const request = { op: 'get', bucketId: bucket.id, key, options } as const
    this.#ask(request, false, options.timeoutMs, done as Callback<unknown>)
  }

  put(bucket: Bucket, key: Uint8Array, value: Uint8Array, options: WriteOptions, done: Callback<WriteAnswer>): void {
    const request = { op: 'put', bucketId: bucket.id, key, value, options } as const
    this.#ask(request, true, options.timeoutMs, done as Callback<unknown>)
  }

  delete(bucket: Bucket, key: Uint8Array, options: WriteOptions, done: Callback<WriteAnswer>): void {
    const request = { op: 'delete', bucketId: bucket.id, key, options } as const
    this.#ask(request, true, options.timeoutMs, done as Callback<unknown>)
  }

  batch(
    bucket: Bucket,
    operations: readonly BatchOperation[],
    options: { readonly timeoutMs?: number | undefined },
    done: Callback<readonly BatchResult[]>,
  ): void {
    const isWrite = operations.some(({ op }) => op !== 'get')
    const request = { op: 'batch', bucketId: bucket.id, operations, options } as const
    this.#ask(request, isWrite, options.timeoutMs, done as Callback<unknown>)
  }

  list(bucket: Bucket, options: ListOptions, done: Callback<ListPage>): void {
    const request = { op: 'list', bucketId: bucket.id, options } as const
    this.#ask(request, false, options.timeoutMs, done as Callback<unknown>)
  }

  /** Asks about the cluster; the answer is plain data. */
  question(question: ClusterQuestion, done: Callback<unknown>): void {
    this.#ask({ op: 'question', question }, false, undefined, done)
  }

  /** Changes the cluster; answered when the change is agreed on, which is before data has moved. */
  change(change: ClusterChange, done: Callback<unknown>): void {
    this.#ask({ op: 'change', change }, true, changeMs, done)
  }

  /** An answer of the node thread. */
  receive(u8: Uint8Array, i32: Int32Array, start: number): void {
    const { requestId, payload } = readMemberFrame(u8, i32, start)
    const pending = this.#pending.take(requestId)
    if (pending === undefined) return
    const { error, answer } = decodeAnswer(payload)
    pending.done(error, answer)
  }

  /** Settles what is past its deadline. */
  tick(): void {
    this.#pending.sweep(this.#clock.monotonicMs(), ({ isWrite, done }) => {
      const outcome = isWrite ? 'unknown' : 'none'
      done(new SunwiseError('TIMEOUT', 'The node did not answer before the deadline', { outcome }), undefined)
    })
  }

  #ask(
    request: MemberRequest,
    isWrite: boolean,
    timeoutMs: number = Limits.timeoutMsDefault,
    done: Callback<unknown>,
  ): void {
    const payload = encodeRequest(request)
    const target = this.#pending.isFull ? undefined : this.#links.beginTo(memberThread, memberFrameBytes(payload))
    if (target === undefined) {
      return done(new SunwiseError('OVERLOADED', 'Too many requests wait for the node', { outcome: 'none' }), undefined)
    }
    const requestId = this.#pending.add({ isWrite, done }, 0, this.#clock.monotonicMs() + timeoutMs + graceMs)
    writeMemberFrame(target, FrameKind.ask, requestId, payload)
    this.#links.commitTo(memberThread)
  }
}
