import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { partitionOfKey } from '../../src/cluster/slots.ts'
import {
  leastReceipt,
  mergePages,
  type PageRange,
  type ReplicaPage,
  readPage,
} from '../../src/replication/quorum-list.ts'
import type { Receipt } from '../../src/replication/requests.ts'
import { bytesOf } from '../storage/store-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const none = new Uint8Array(0)
/** The keys of these tests are all in one partition. */
const partition = partitionOfKey(bytesOf('{t}'))
const range: PageRange = { partition, prefix: none, after: undefined }

function keyOf(number: number): string {
  return `{t}${String(number).padStart(3, '0')}`
}

function entryBytes(key: string, set: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(6 + key.length + set.length)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, key.length, true)
  view.setUint32(2, set.length, true)
  bytes.set(bytesOf(key), 6)
  bytes.set(set, 6 + key.length)
  return bytes
}

/** What a replica with these keys tells, so many of them at a time. */
function pageOf(held: readonly number[], limit: number): ReplicaPage {
  const entries = held.slice(0, limit).map((number) => ({ key: bytesOf(keyOf(number)), set: Uint8Array.of(number) }))
  return { entries, end: held.length > limit ? entries.at(-1)!.key : undefined, isDurable: true }
}

const heldKeys = fc
  .uniqueArray(fc.integer({ min: 0, max: 60 }), { maxLength: 40 })
  .map((keys) => keys.sort((a, b) => a - b))

test('mergePages() page by page gives every key that any replica has once, in order, from each replica that has it', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(heldKeys, fc.integer({ min: 1, max: 9 })), { minLength: 1, maxLength: 4 }),
      (replicas) => {
        const seen: [string, number][] = []
        let after = -1
        for (let isThrough = false; !isThrough; ) {
          const pages = replicas.map(([held, limit]) =>
            pageOf(
              held.filter((number) => number > after),
              limit,
            ),
          )
          const { keys, reach } = mergePages(pages)
          for (const { key, sets } of keys) seen.push([Buffer.from(key).toString(), sets.length])
          isThrough = reach === undefined
          if (reach === undefined) continue
          const next = Number(Buffer.from(reach).toString().slice(3))
          assert.ok(next > after, 'A page leads on')
          after = next
        }
        const all = [...new Set(replicas.flatMap(([held]) => held))].sort((a, b) => a - b)
        assert.deepEqual(
          seen,
          all.map((number) => [keyOf(number), replicas.filter(([held]) => held.includes(number)).length]),
        )
      },
    ),
    { numRuns: 500 * scale },
  )
})

test('leastReceipt(): a page is as durable as the least durable of its partitions, whichever had the fewest replicas', () => {
  const of = (acks: number, durable: boolean): Receipt => ({ acks, replicas: 3, sloppy: false, durable, epoch: 1 })
  assert.deepEqual(leastReceipt(of(2, true), of(2, false)), of(2, false))
  assert.deepEqual(leastReceipt(of(3, false), of(2, true)), of(2, false))
  assert.deepEqual(leastReceipt(of(2, true), of(3, true)), of(2, true))
  assert.deepEqual(leastReceipt(of(3, true), of(1, true)), of(1, true))
})

test('readPage() reads the form that replicas tell each other: it never changes', () => {
  const entries = Uint8Array.from(
    Buffer.from('0400 02000000 7b747d61 aabb 0400 00000000 7b747d62'.replaceAll(' ', ''), 'hex'),
  )
  const page = readPage(range, { entries, end: bytesOf('{t}c'), isDurable: false })
  assert.deepEqual(page, {
    entries: [
      { key: bytesOf('{t}a'), set: Uint8Array.of(0xaa, 0xbb) },
      { key: bytesOf('{t}b'), set: none },
    ],
    end: bytesOf('{t}c'),
    isDurable: false,
  })
})

test('readPage() believes nothing that is no answer to the question', () => {
  const two = Buffer.concat([entryBytes('{t}a', Uint8Array.of(1)), entryBytes('{t}b', Uint8Array.of(2))])
  const isTaken = (asked: Partial<PageRange>, entries: Uint8Array, end?: string): boolean =>
    readPage(
      { ...range, ...asked },
      { entries, end: end === undefined ? undefined : bytesOf(end), isDurable: true },
    ) !== undefined
  assert.ok(isTaken({}, two))
  assert.ok(isTaken({ prefix: bytesOf('{t}'), after: bytesOf('{t}A') }, two, '{t}b'))
  assert.ok(isTaken({}, none), 'Nothing at all is an answer')
  assert.ok(!isTaken({ partition: partition ^ 1 }, two), 'Keys of another partition')
  assert.ok(!isTaken({ prefix: bytesOf('{t}b') }, two), 'Keys without the prefix')
  assert.ok(!isTaken({ after: bytesOf('{t}a') }, two), 'A key that is not behind the place')
  assert.ok(!isTaken({}, Buffer.concat([two, two])), 'Keys out of order')
  assert.ok(!isTaken({}, two, '{t}a'), 'An end before a key')
  assert.ok(!isTaken({ after: bytesOf('{t}x') }, none, '{t}x'), 'An end that leads nowhere')
  for (let end = 1; end < two.length; end++) {
    if (end !== two.length / 2) assert.ok(!isTaken({}, two.subarray(0, end)), `Cut off at ${end}`)
  }
})

test('readPage() never throws on damaged bytes', () => {
  fc.assert(
    fc.property(
      heldKeys,
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }),
      fc.uint8Array(),
      (held, flips, tail) => {
        const bytes = Buffer.concat([...held.map((number) => entryBytes(keyOf(number), Uint8Array.of(number))), tail])
        for (const [position, flip] of flips) if (bytes.length > 0) bytes[position % bytes.length]! ^= flip
        const page = readPage(range, { entries: bytes, end: undefined, isDurable: true })
        const told = page?.entries.map(({ key }) => Buffer.from(key).toString('latin1')) ?? []
        assert.deepEqual(
          told,
          [...new Set(told)].sort((a, b) => (a < b ? -1 : 1)),
        )
      },
    ),
    { numRuns: 2000 * scale },
  )
})
