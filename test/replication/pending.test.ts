import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Limits } from '../../src/config.ts'
import { PendingTable } from '../../src/replication/pending.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

test('PendingTable equals a map from ids to requests', () => {
  const step = fc.record({
    verb: fc.constantFrom('add', 'add', 'add', 'take', 'takeAgain', 'sweep', 'failShard', 'failAll'),
    at: fc.nat(),
    shard: fc.nat(3),
    deadlineMs: fc.nat(1000),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const table = new PendingTable<number>()
      const model = new Map<number, { readonly request: number; readonly shard: number; readonly deadlineMs: number }>()
      const gone: number[] = []
      let requests = 0
      let nowMs = 0
      const takeAll = (wanted: (entry: { shard: number; deadlineMs: number }) => boolean): number[] => {
        const ids = [...model].filter(([, entry]) => wanted(entry)).map(([id]) => id)
        const taken = ids.map((id) => model.get(id)!.request)
        for (const id of ids) model.delete(id)
        gone.push(...ids)
        return taken.sort((a, b) => a - b)
      }
      const collect = (run: (visit: (request: number) => void) => void): number[] => {
        const found: number[] = []
        run((request) => found.push(request))
        return found.sort((a, b) => a - b)
      }
      for (const { verb, at, shard, deadlineMs } of steps) {
        const ids = [...model.keys()]
        if (verb === 'add') {
          const id = table.add(++requests, shard, nowMs + deadlineMs)
          assert.ok(Number.isInteger(id) && id >= 0 && id <= 0xffff_ffff, 'An id is a u32')
          assert.equal(model.has(id), false)
          model.set(id, { request: requests, shard, deadlineMs: nowMs + deadlineMs })
        } else if (verb === 'take' && ids.length > 0) {
          const id = ids[at % ids.length]!
          assert.equal(table.take(id), model.get(id)!.request)
          model.delete(id)
          gone.push(id)
        } else if (verb === 'takeAgain' && gone.length > 0) {
          assert.equal(table.take(gone[at % gone.length]!), undefined, 'What is gone stays gone')
        } else if (verb === 'sweep') {
          nowMs += deadlineMs
          const found = collect((visit) => table.sweep(nowMs, visit))
          assert.deepEqual(
            found,
            takeAll((entry) => entry.deadlineMs <= nowMs),
          )
        } else if (verb === 'failShard') {
          const found = collect((visit) => table.failShard(shard, visit))
          assert.deepEqual(
            found,
            takeAll((entry) => entry.shard === shard),
          )
        } else if (verb === 'failAll') {
          const found = collect((visit) => table.failShard(-1, visit))
          assert.deepEqual(
            found,
            takeAll(() => true),
          )
        }
        assert.equal(table.count, model.size)
        assert.equal(table.isFull, false)
      }
    }),
    { numRuns: 60 * scale },
  )
})

test('PendingTable is full at its limit and empty again', () => {
  const table = new PendingTable<number>()
  const ids = Array.from({ length: Limits.pendingRequestsMax }, (_, request) => table.add(request, 0, 1))
  assert.equal(new Set(ids).size, Limits.pendingRequestsMax)
  assert.ok(table.isFull)
  assert.throws(() => table.add(-1, 0, 1), { name: 'AssertionError' })
  assert.equal(table.take(ids[77]!), 77)
  assert.equal(table.isFull, false)
  const again = table.add(-77, 0, 1)
  assert.notEqual(again, ids[77], 'The slot has another turn')
  assert.equal(table.take(ids[77]!), undefined)
  assert.equal(table.take(again), -77)
})

test('PendingTable: ids of one slot repeat only after half a million requests', () => {
  const table = new PendingTable<string>()
  const first = table.add('first', 0, 1)
  table.take(first)
  let requests = 0
  for (;;) {
    const id = table.add('later', 0, 1)
    requests++
    assert.equal(table.take(id), 'later')
    if (id === first) break
  }
  assert.equal(requests, 2 ** 32 / Limits.pendingRequestsMax)
})

test('PendingTable: a callback may add requests, which are not judged in the same sweep unless they are due', () => {
  const table = new PendingTable<string>()
  for (let request = 0; request < 50; request++) table.add('old', 0, 10)
  let added = 0
  table.sweep(10, (request) => {
    assert.equal(request, 'old')
    table.add('new', 0, 20)
    added++
  })
  assert.equal(added, 50)
  assert.equal(table.count, 50)
})
