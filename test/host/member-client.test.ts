/** What a worker's front asks the node thread, and what comes back: over frames in plain memory instead of rings. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SunwiseError } from '../../src/base/errors.ts'
import { bucketIdOf, type EpochMs, type MonotonicMs } from '../../src/base/ids.ts'
import { MemberClient } from '../../src/host/member-client.ts'
import {
  decodeRequest,
  encodeAnswer,
  encodeBatchAnswer,
  type MemberRequest,
  memberFrameBytes,
  readMemberFrame,
  writeMemberFrame,
} from '../../src/host/member-frames.ts'
import type { BatchResult, Receipt } from '../../src/replication/requests.ts'
import { FrameKind } from '../../src/shard/command.ts'
import { bucketOf } from '../bucket.ts'

const bucket = bucketOf({ id: bucketIdOf(7), name: 'b', valueBytesMax: 1024 })
const receipt: Receipt = { acks: 2, replicas: 3, sloppy: true, durable: false, epoch: 9, nodes: [] }

/** The node thread's end: takes frames, and answers when it is told to. */
class Rig {
  nowMs = 0
  isFull = false
  readonly asked: { readonly requestId: number; readonly request: MemberRequest }[] = []
  readonly client: MemberClient
  #target = this.#room(0)

  constructor() {
    const clock = { monotonicMs: () => this.nowMs as MonotonicMs, epochMs: () => 0 as EpochMs }
    const links = {
      beginTo: (_thread: number, bytes: number) => {
        this.#target = this.#room(bytes)
        return this.isFull ? undefined : this.#target
      },
      commitTo: () => {
        const { u8, i32, start } = this.#target
        assert.equal(u8[start], FrameKind.ask)
        const { requestId, payload } = readMemberFrame(u8, i32, start)
        this.asked.push({ requestId, request: decodeRequest(payload) })
      },
    }
    this.client = new MemberClient(links, clock)
  }

  /** Some bytes into larger memory, as in a ring. */
  #room(bytes: number): { u8: Uint8Array; i32: Int32Array; start: number } {
    const buffer = new SharedArrayBuffer(bytes + 64)
    return { u8: new Uint8Array(buffer), i32: new Int32Array(buffer), start: 16 }
  }

  answer(requestId: number, payload: Uint8Array): void {
    const target = this.#room(memberFrameBytes(payload))
    writeMemberFrame(target, FrameKind.answer, requestId, payload)
    this.client.receive(target.u8, target.i32, target.start)
    // What was answered is the receiver's own: the ring is used again.
    target.u8.fill(0xff)
  }
}

test('MemberClient carries requests and answers whole: options, values, contexts, receipts, errors and what they say', () => {
  const rig = new Rig()
  const answers: unknown[] = []
  const key = Buffer.from('a key')
  const options = { w: 2, sloppy: true, context: Uint8Array.of(1, 2), ttlMs: Number.POSITIVE_INFINITY }
  rig.client.put(bucket, key, Uint8Array.of(5, 6), options, (error, answer) => answers.push(error ?? answer))
  const { requestId, request } = rig.asked[0]!
  assert.ok(request.op === 'put')
  assert.deepEqual([Buffer.from(request.key), [...request.value], request.bucketId], [key, [5, 6], 7])
  assert.deepEqual(request.options, options)
  const written = { etag: 'ab', context: Uint8Array.of(3), siblings: 1, expiresAtMs: undefined, receipt }
  rig.answer(requestId, encodeAnswer(undefined, written))
  assert.deepEqual(answers.pop(), written)
  rig.client.get(bucket, key, {}, (error) => answers.push(error))
  const failure = new SunwiseError('QUORUM_NOT_MET', 'Too few', { outcome: 'partial', extra: { needed: 2 } })
  rig.answer(rig.asked[1]!.requestId, encodeAnswer(failure, undefined))
  const told = answers.pop() as SunwiseError
  assert.ok(told instanceof SunwiseError)
  assert.deepEqual(
    [told.code, told.message, told.outcome, told.extra],
    ['QUORUM_NOT_MET', 'Too few', 'partial', { needed: 2 }],
  )
  const results: BatchResult[] = [
    { op: 'put', answer: written },
    { op: 'get', error: failure },
  ]
  rig.client.batch(bucket, [{ op: 'get', key }], {}, (_error, answer) => answers.push(answer))
  rig.answer(rig.asked[2]!.requestId, encodeBatchAnswer(results))
  const [first, second] = answers.pop() as BatchResult[]
  assert.deepEqual(first, results[0])
  assert.ok(second !== undefined && 'error' in second && second.error instanceof SunwiseError)
  assert.equal(second.error.outcome, 'partial')
})

test('MemberClient settles each request once: full queues at once, lost answers after their deadline, late ones never', () => {
  const rig = new Rig()
  const codes: string[] = []
  const key = Buffer.from('k')
  const note = (error: SunwiseError | undefined): unknown => codes.push(`${error?.code} ${error?.outcome}`)
  rig.isFull = true
  rig.client.put(bucket, key, key, {}, note)
  assert.deepEqual(codes.splice(0), ['OVERLOADED none'])
  rig.isFull = false
  rig.client.put(bucket, key, key, { timeoutMs: 100 }, note)
  rig.client.get(bucket, key, { timeoutMs: 100 }, note)
  rig.nowMs = 100
  rig.client.tick()
  assert.deepEqual(codes, [], 'The node answers by then, and its answer is on its way')
  rig.nowMs = 5000
  rig.client.tick()
  assert.deepEqual(codes.splice(0).sort(), ['TIMEOUT none', 'TIMEOUT unknown'])
  for (const { requestId } of rig.asked) rig.answer(requestId, encodeAnswer(undefined, {}))
  assert.deepEqual(codes, [])
  assert.equal(rig.client.pendingCount, 0)
})
