/** A disk that runs full while data goes to tables: growth is refused in time, everything else goes on, and room is found again. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DiskFullRig } from './disk-full-rig.ts'

const KiB = 1024
const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const keyOf = (index: number): string => `{${index % 499}}key${index}`
const textFor = (index: number, round = 0): string => `${index}.${round} `.padEnd(400 + ((index * 37) % 300), 'x')

/** Puts until growth is refused for good: merging wins back what it can. Returns all keys that were tried. */
function fill(rig: DiskFullRig, round = 0): string[] {
  const keys: string[] = []
  for (let index = 0; ; index++) {
    assert.ok(index < 20_000, 'A disk ends')
    keys.push(keyOf(index))
    const code = rig.put(keyOf(index), textFor(index, round))
    if (index % 8 === 0) rig.pass(20)
    if (code === undefined) continue
    assert.equal(code, 'DISK_FULL')
    rig.pass(6_000)
    if (rig.keeper.isFull) return keys
  }
}

const disks = [
  [1, 2048, 64],
  [2, 4096, 128],
  [2, 6144, 192],
] as const
for (const [shards, capacityKiB, reserveKiB] of disks.slice(0, scale > 1 ? 3 : 2)) {
  const disk = `${capacityKiB} KiB with a reserve of ${reserveKiB}`
  test(`${shards} shards fill a disk of ${disk}: growth is refused, deletes go on, merges make room, writes are taken again`, () => {
    const rig = new DiskFullRig({
      seed: 1,
      shards,
      reserveBytes: reserveKiB * KiB,
      capacityBytes: capacityKiB * KiB,
    })
    rig.pass(1000)
    assert.equal(rig.keeper.reserveBytes, reserveKiB * KiB)
    const keys = fill(rig)
    // At once, whatever shard it is for; and it stays so while nothing is freed.
    for (let index = 0; index < 40; index++) assert.equal(rig.put(`{${index}}more`, textFor(index)), 'DISK_FULL')
    rig.verify(keys)
    const held = rig.held.size
    assert.ok(held > (capacityKiB * KiB) / 3 / 700, `${held} keys fit`)
    for (const key of [...rig.held.keys()]) assert.equal(rig.delete(key), undefined, `${key} can be deleted`)
    rig.verify(keys)
    rig.pass(20_000)
    assert.equal(rig.keeper.isFull, false, `${rig.freeBytes} bytes are free, ${rig.bytesOfTables} in tables`)
    assert.equal(rig.keeper.reserveBytes, reserveKiB * KiB)
    assert.equal(rig.failedJobs, 0, 'Nothing was begun that did not fit')
    // There is about as much room as at first.
    const again = fill(rig, 1)
    assert.ok(rig.held.size > held * 0.6, `${rig.held.size} of ${held}`)
    rig.verify(again)
  })
}

test('A disk too full even for deletes says so, loses nothing, and everything goes on within 2 s once others free some', () => {
  const rig = new DiskFullRig({ seed: 2, capacityBytes: 2048 * KiB, reserveBytes: 64 * KiB })
  rig.pass(1000)
  const keys = fill(rig)
  // Somebody else takes the rest, and what the reserve gives, too.
  rig.disk.capacityBytes = rig.disk.usedBytes
  rig.pass(2000)
  rig.disk.capacityBytes = rig.disk.usedBytes
  let refusal: string | undefined
  for (const key of [...rig.held.keys()]) {
    refusal = rig.delete(key)
    if (refusal !== undefined) break
  }
  assert.equal(refusal, 'DISK_FULL')
  rig.verify(keys)
  const before = rig.freeBytes
  rig.pass(5000)
  assert.ok(rig.freeBytes >= before - 4096, 'Nothing grows')
  rig.disk.capacityBytes += 4096 * KiB
  rig.pass(2000)
  assert.equal(rig.keeper.isFull, false)
  assert.equal(rig.put('new', 'value'), undefined)
  for (const key of keys.slice(0, 200)) assert.equal(rig.delete(key), undefined)
  rig.verify([...keys, 'new'])
})

test('A node whose disk is full starts, serves, deletes and recovers', () => {
  const rig = new DiskFullRig({ seed: 3, shards: 2, capacityBytes: 4096 * KiB, reserveBytes: 128 * KiB })
  rig.pass(1000)
  const keys = fill(rig)
  rig.rig.close()
  // Not one byte is left.
  rig.disk.capacityBytes = rig.disk.usedBytes
  rig.open()
  assert.equal(rig.keeper.isFull, true, 'Known from the first look')
  rig.verify(keys)
  assert.equal(rig.put('more', 'value'.repeat(100)), 'DISK_FULL')
  rig.disk.capacityBytes = 4096 * KiB
  for (const key of [...rig.held.keys()]) assert.equal(rig.delete(key), undefined)
  rig.pass(20_000)
  assert.equal(rig.keeper.isFull, false, `${rig.freeBytes} bytes are free, ${rig.bytesOfTables} in tables`)
  assert.equal(rig.put('more', 'value'), undefined)
  rig.verify([...keys, 'more'])
})

test('Power cuts anywhere on a full disk lose nothing acknowledged, and leave nothing that takes room', () => {
  let crashes = 0
  for (let seed = 1; seed <= 2 * scale; seed++) {
    const rig = new DiskFullRig({ seed, shards: 2, capacityBytes: 4096 * KiB, reserveBytes: 128 * KiB })
    rig.pass(1000)
    const keys = fill(rig)
    for (const [index, key] of [...rig.held.keys()].entries()) {
      if (index % 97 === 0) rig.disk.crashAtChange(rig.random.between(1, 60))
      assert.equal(rig.delete(key), undefined, `${key} (seed ${seed})`)
      if (index % 50 === 0) rig.surviving(() => rig.pass(40))
    }
    rig.disk.crashAtChange(Number.MAX_SAFE_INTEGER)
    rig.verify(keys)
    rig.pass(20_000)
    assert.equal(rig.keeper.isFull, false, `seed ${seed}: ${rig.freeBytes} free, ${rig.bytesOfTables} in tables`)
    assert.equal(rig.put('more', 'value'), undefined)
    rig.verify([...keys, 'more'])
    const listed = rig.disk.listNow('tables').length
    const named = rig.rig.shards.reduce((sum, { store }) => sum + store.tables!.tableCount, 0)
    assert.equal(listed, named, `Seed ${seed}: every file is a table`)
    crashes += rig.crashes
  }
  assert.ok(crashes > 2, `${crashes} crashes`)
})
