import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeMoveMessage, encodeMoveMessage, type MoveMessage } from '../../../src/cluster/topology/move-messages.ts'

const messages: readonly MoveMessage[] = [
  { type: 'ask', epoch: 7 },
  { type: 'tell', progress: { epoch: 0xffff_fffe, isDone: true } },
  { type: 'tell', progress: { epoch: 0, isDone: false } },
]

test('encodeMoveMessage() is part of the protocol between nodes: its bytes never change', () => {
  assert.deepEqual(
    messages.map((message) => Buffer.from(encodeMoveMessage(message)).toString('hex')),
    ['010107000000', '0102feffffff01', '01020000000000'],
  )
})

test('decodeMoveMessage() takes what was encoded, and nothing else', () => {
  for (const message of messages) {
    const bytes = encodeMoveMessage(message)
    assert.deepEqual(decodeMoveMessage(bytes), message)
    for (let end = 0; end < bytes.length; end++) assert.equal(decodeMoveMessage(bytes.subarray(0, end)), undefined)
    assert.equal(decodeMoveMessage(Uint8Array.of(...bytes, 0)), undefined)
    for (const [at, value] of [
      [0, 2],
      [1, 0],
      [1, 3],
    ] as const) {
      const other = bytes.slice()
      other[at] = value
      assert.equal(decodeMoveMessage(other), undefined)
    }
  }
  assert.equal(decodeMoveMessage(Uint8Array.of(1, 2, 0, 0, 0, 0, 2)), undefined)
})
