/**
 * Frames between the front of a worker and the node thread of a cluster's member: what a client asks, and the answer. Both ends run the
 * same release, so there is no version, and what is asked stands there as structured clone:
 *
 *      0 u8 kind (ask, answer)   1 u8 0   2 u16 0   4 u32 requestId   8 u32 payloadBytes   12 payload
 */
import { deserialize, serialize } from 'node:v8'
import { pad4 } from '../base/bytes.ts'
import { type ErrorCode, type Outcome, SunwiseError } from '../base/errors.ts'
import type { FrameTarget } from '../env.ts'
import type {
  BatchOperation,
  BatchResult,
  Callback,
  ListOptions,
  ReadOptions,
  WriteOptions,
} from '../replication/requests.ts'

/** A change of the cluster that an operator asks for. */
export type ClusterChange =
  | { readonly type: 'leave'; readonly nodeId: string }
  /** The member is down and will not come back; `force`: even where it may have had the only copy. */
  | { readonly type: 'remove'; readonly nodeId: string; readonly force: boolean }

/** What the node says about the cluster. */
export type ClusterQuestion =
  | { readonly about: 'cluster' | 'ring' | 'nodes' }
  | { readonly about: 'key'; readonly bucketId: number; readonly key: Uint8Array }

/** What a front asks of the node about its cluster. */
export type ClusterDoor = {
  question(question: ClusterQuestion, done: Callback<unknown>): void
  change(change: ClusterChange, done: Callback<unknown>): void
}

export type MemberRequest =
  | { readonly op: 'get'; readonly bucketId: number; readonly key: Uint8Array; readonly options: ReadOptions }
  | {
      readonly op: 'put'
      readonly bucketId: number
      readonly key: Uint8Array
      readonly value: Uint8Array
      readonly options: WriteOptions
    }
  | { readonly op: 'delete'; readonly bucketId: number; readonly key: Uint8Array; readonly options: WriteOptions }
  | {
      readonly op: 'batch'
      readonly bucketId: number
      readonly operations: readonly BatchOperation[]
      readonly options: { readonly timeoutMs?: number | undefined }
    }
  | { readonly op: 'list'; readonly bucketId: number; readonly options: ListOptions }
  | { readonly op: 'question'; readonly question: ClusterQuestion }
  | { readonly op: 'change'; readonly change: ClusterChange }

/** An error as it crosses the ring, with everything that the client is told. */
type Failure = {
  readonly code: ErrorCode
  readonly message: string
  readonly outcome: Outcome
  readonly extra: Readonly<Record<string, unknown>> | undefined
}

/** Results of a batch hold errors, which are told as failures. */
type Told = { readonly failure: Failure } | { readonly answer: unknown } | { readonly results: readonly unknown[] }

const headBytes = 12

/** Bytes of the frame for a payload. */
export function memberFrameBytes(payload: Uint8Array): number {
  return pad4(headBytes + payload.length)
}

/** Writes a frame into what was reserved for it. */
export function writeMemberFrame({ u8, i32, start }: FrameTarget, kind: number, id: number, payload: Uint8Array): void {
  i32[start >> 2] = kind
  i32[(start >> 2) + 1] = id | 0
  i32[(start >> 2) + 2] = payload.length
  u8.set(payload, start + headBytes)
}

/** Id and payload, a copy, of a frame. */
export function readMemberFrame(
  u8: Uint8Array,
  i32: Int32Array,
  start: number,
): { readonly requestId: number; readonly payload: Uint8Array } {
  const bytes = i32[(start >> 2) + 2]!
  const payload = new Uint8Array(bytes)
  payload.set(u8.subarray(start + headBytes, start + headBytes + bytes))
  return { requestId: i32[(start >> 2) + 1]! >>> 0, payload }
}

export function encodeRequest(request: MemberRequest): Uint8Array {
  return serialize(request)
}

export function decodeRequest(payload: Uint8Array): MemberRequest {
  return deserialize(payload) as MemberRequest
}

export function encodeAnswer(error: SunwiseError | undefined, answer: unknown): Uint8Array {
  const told: Told = error === undefined ? { answer } : { failure: failureOf(error) }
  return serialize(told)
}

export function encodeBatchAnswer(results: readonly BatchResult[]): Uint8Array {
  const told: Told = {
    results: results.map((result) =>
      'error' in result ? { op: result.op, failure: failureOf(result.error) } : result,
    ),
  }
  return serialize(told)
}

/** What was answered: the error, or the answer as it was given. */
export function decodeAnswer(payload: Uint8Array): {
  readonly error: SunwiseError | undefined
  readonly answer: unknown
} {
  const told = deserialize(payload) as Told
  if ('failure' in told) return { error: errorOf(told.failure), answer: undefined }
  if ('answer' in told) return { error: undefined, answer: told.answer }
  const results = (
    told.results as readonly (BatchResult | { readonly op: BatchResult['op']; readonly failure: Failure })[]
  ).map((result) => ('failure' in result ? { op: result.op, error: errorOf(result.failure) } : result))
  return { error: undefined, answer: results }
}

function failureOf({ code, message, outcome, extra }: SunwiseError): Failure {
  return { code, message, outcome, extra }
}

function errorOf({ code, message, outcome, extra }: Failure): SunwiseError {
  return new SunwiseError(code, message, { outcome, ...(extra === undefined ? {} : { extra }) })
}
