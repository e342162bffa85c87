import assert from 'node:assert/strict'
import { mock, test } from 'node:test'
import { HoldKeeper } from '../../src/host/hold-keeper.ts'
import type { LogRow } from '../../src/host/node-record.ts'

function rig(): {
  keeper: HoldKeeper
  node: { problem: string | undefined; crashes: number; fails: boolean; answer: Promise<void> }
  released: string[]
} {
  const released: string[] = []
  const node = { problem: undefined as string | undefined, crashes: 0, fails: false, answer: Promise.resolve() }
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
        await node.answer
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
    const slow = await keeper.hold()
    mock.timers.tick(999)
    slow.check()
    assert.deepEqual(released, [])
    mock.timers.tick(1)
    assert.deepEqual(released, ['all'])
    assert.throws(() => slow.check(), { code: 'OVERLOADED', message: /within 1 s/ })
    // It is in nobody's way, and takes nothing from the next one, however late it ends.
    const next = await keeper.hold()
    slow.release('all')
    assert.deepEqual(released, ['all'])
    // In time, nothing is cut.
    next.release('log')
    mock.timers.tick(100_000)
    next.check()
    next.release('all')
    next.release('all')
    assert.deepEqual(released, ['all', 'log', 'all'])
  } finally {
    mock.timers.reset()
  }
})

test('HoldKeeper: what takes too long to begin is let go by all shards, also by those that began last', async () => {
  mock.timers.enable({ apis: ['setTimeout'] })
  try {
    const { keeper, node, released } = rig()
    let answer = (): void => {}
    node.answer = new Promise((resolve) => {
      answer = resolve
    })
    const hold = keeper.hold()
    mock.timers.tick(1000)
    assert.deepEqual(released, ['all'])
    answer()
    await assert.rejects(hold, { code: 'OVERLOADED' })
    assert.deepEqual(released, ['all', 'all'])
    await keeper.hold()
  } finally {
    mock.timers.reset()
  }
})

test('HoldKeeper: a crash of a shard breaks a hold; a node that is not up takes none', async () => {
  const { keeper, node, released } = rig()
  const hold = await keeper.hold()
  node.crashes++
  assert.throws(() => hold.check(), { code: 'SHARD_UNAVAILABLE' })
  await assert.rejects(keeper.hold(), { code: 'OVERLOADED' })
  hold.release('all')
  node.problem = 'shard 0 is recovering'
  await assert.rejects(keeper.hold(), { code: 'NOT_READY', message: /shard 0 is recovering/ })
  node.problem = undefined
  node.fails = true
  await assert.rejects(keeper.hold(), /a shard is gone/)
  node.fails = false
  const next = await keeper.hold()
  next.check()
  assert.equal(released.filter((what) => what === 'log').length, 0)
  next.release('all')
})
