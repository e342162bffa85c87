import assert from 'node:assert/strict'
import { mock, test } from 'node:test'
import { HoldKeeper } from '../../src/host/hold-keeper.ts'
import type { LogRow } from '../../src/host/node-record.ts'

function rig(): {
  keeper: HoldKeeper
  node: { problem: string | undefined; crashes: number; fails: boolean }
  released: string[]
} {
  const released: string[] = []
  const node = { problem: undefined as string | undefined, crashes: 0, fails: false }
  const log: LogRow = { generation: 1, shards: 1, segmentBytes: 1, retired: [] }
  const keeper = new HoldKeeper(
    {
      get problem() {
        return node.problem
      },
      get crashes() {
        return node.crashes
      },
      holdShards: async () => {
        if (node.fails) throw new Error('a shard is gone')
        return []
      },
      releaseShards: (what) => released.push(what),
      describe: () => ({ nodeId: 'n', log, rows: [] }),
    },
    1000,
  )
  return { keeper, node, released }
}

test('HoldKeeper: a log that is held for too long is let go, and the backup hears of it', async () => {
  mock.timers.enable({ apis: ['setTimeout'] })
  try {
    const { keeper, released } = rig()
    await keeper.hold()
    mock.timers.tick(999)
    keeper.checkHold()
    assert.deepEqual(released, [])
    mock.timers.tick(1)
    assert.deepEqual(released, ['log'])
    assert.throws(() => keeper.checkHold(), { code: 'OVERLOADED', message: /within 1 s/ })
    keeper.releaseHold('all')
    // In time, nothing is cut.
    await keeper.hold()
    keeper.releaseHold('log')
    mock.timers.tick(100_000)
    keeper.checkHold()
    assert.deepEqual(released, ['log', 'all', 'log'])
  } finally {
    mock.timers.reset()
  }
})

test('HoldKeeper: a crash of a shard breaks a hold; a node that is not up takes none', async () => {
  const { keeper, node, released } = rig()
  await keeper.hold()
  node.crashes++
  assert.throws(() => keeper.checkHold(), { code: 'SHARD_UNAVAILABLE' })
  await assert.rejects(keeper.hold(), { code: 'OVERLOADED' })
  keeper.releaseHold('all')
  node.problem = 'shard 0 is recovering'
  await assert.rejects(keeper.hold(), { code: 'NOT_READY', message: /shard 0 is recovering/ })
  node.problem = undefined
  node.fails = true
  await assert.rejects(keeper.hold(), /a shard is gone/)
  node.fails = false
  await keeper.hold()
  keeper.checkHold()
  assert.deepEqual(released, ['all', 'all'])
  keeper.releaseHold('all')
})
