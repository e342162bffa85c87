import assert from 'node:assert/strict'
import { test } from 'node:test'
import { acksNeeded, checkLevel } from '../../src/replication/quorum.ts'

test('acksNeeded() is one, a majority, all, or the number asked for', () => {
  for (let replicas = 1; replicas <= 5; replicas++) {
    assert.equal(acksNeeded('one', replicas), 1)
    assert.equal(acksNeeded('all', replicas), replicas)
    const majority = acksNeeded('quorum', replicas)
    assert.ok(2 * majority > replicas && 2 * (majority - 1) <= replicas, `${majority} of ${replicas}`)
    for (let level = 1; level <= replicas; level++) assert.equal(acksNeeded(level, replicas), level)
  }
})

test('checkLevel() takes what the bucket and the replicas allow, and names what it does not', () => {
  for (let n = 1; n <= 5; n++) {
    for (let replicas = 1; replicas <= n; replicas++) {
      for (const name of ['one', 'quorum', 'all'] as const) assert.equal(checkLevel(name, n, replicas, 'r'), undefined)
      for (let level = -1; level <= n + 1; level++) {
        const error = checkLevel(level, n, replicas, 'w')
        if (level < 1 || level > n) assert.equal(error?.code, 'BAD_QUORUM')
        else if (level > replicas) {
          assert.equal(error?.code, 'QUORUM_NOT_MET')
          assert.equal(error.outcome, 'none')
          assert.deepEqual(error.extra, { needed: level, replicas })
        } else assert.equal(error, undefined)
        if (error !== undefined) assert.ok(error.message.includes(`w=${level}`))
      }
      for (const level of [0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
        assert.equal(checkLevel(level, n, replicas, 'r')?.code, 'BAD_QUORUM')
      }
    }
  }
})
