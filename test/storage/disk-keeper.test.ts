import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import type { Disk } from '../../src/env.ts'
import { DiskKeeper, reserveBytesOf, reservePath, writeDiskState } from '../../src/storage/disk-keeper.ts'
import { ControlWord, controlWords } from '../../src/storage/shard-memory.ts'
import { SimDisk } from '../sim/sim-disk.ts'

const KiB = 1024
const MiB = 1024 * KiB
const reserveBytes = 64 * KiB

function keeperOn(disk: Disk): { keeper: DiskKeeper; reports: SunwiseError[]; changes: boolean[] } {
  const reports: SunwiseError[] = []
  const changes: boolean[] = []
  const options = {
    disk,
    reserveBytes,
    changed: (changed: DiskKeeper) => changes.push(changed.isFull),
    report: (error: SunwiseError) => reports.push(error),
  }
  return { keeper: new DiskKeeper(options, 0), reports, changes }
}

test('DiskKeeper: the reserve is made at the start, durable, and found again by the next', () => {
  const disk = new SimDisk({ capacityBytes: 8 * MiB })
  assert.equal(keeperOn(disk).keeper.reserveBytes, reserveBytes)
  disk.crash(new SeededRandom(1))
  assert.equal(disk.bytesOf(reservePath).length, reserveBytes)
  const creations = disk.calls.create
  assert.equal(keeperOn(disk).keeper.reserveBytes, reserveBytes)
  assert.equal(disk.calls.create, creations, 'It is not written a second time')
})

test('DiskKeeper: a reserve of another size, such as a part of one, is made anew', () => {
  for (const bytes of [0, 100, 2 * reserveBytes]) {
    const disk = new SimDisk({ capacityBytes: 8 * MiB })
    disk.create(reservePath, bytes, (_error, file) => file!.close())
    assert.equal(keeperOn(disk).keeper.reserveBytes, reserveBytes)
    assert.equal(disk.bytesOf(reservePath).length, reserveBytes)
  }
})

test('DiskKeeper: on a small disk the reserve is small', () => {
  const disk = new SimDisk({ capacityBytes: 1 * MiB })
  assert.equal(keeperOn(disk).keeper.reserveBytes, 32 * KiB)
  assert.equal(reserveBytesOf(64 * MiB, 4096 * MiB), 128 * MiB)
  assert.equal(reserveBytesOf(64 * MiB, 256 * MiB), 32 * MiB)
  assert.equal(reserveBytesOf(8 * MiB, 4096 * MiB), 16 * MiB)
})

test('DiskKeeper: a start on a full disk goes on without a reserve, refuses growth, and takes the reserve when there is room', () => {
  const disk = new SimDisk({ capacityBytes: 8 * MiB })
  disk.createNow('other').writeNow(new Uint8Array(8 * MiB), 0, 8 * MiB, 0)
  const { keeper, reports } = keeperOn(disk)
  assert.deepEqual([keeper.isFull, keeper.reserveBytes, keeper.freeBytes], [true, 0, 0])
  disk.capacityBytes = 9 * MiB
  keeper.tick(500)
  keeper.tick(1000)
  assert.deepEqual([keeper.isFull, keeper.reserveBytes, reports.length], [false, reserveBytes, 0])
})

test('DiskKeeper.met() gives the reserve up at once, with news; it comes back when there is room again, with news', () => {
  const disk = new SimDisk({ capacityBytes: 8 * MiB })
  const { keeper } = keeperOn(disk)
  disk.capacityBytes = disk.usedBytes + 200 * KiB
  keeper.tick(500)
  assert.equal(keeper.isFull, false)
  const { news } = keeper
  keeper.met(600)
  assert.deepEqual([keeper.isFull, keeper.reserveBytes, disk.usedBytes], [true, 0, 0])
  assert.ok(keeper.news > news)
  keeper.tick(1000)
  const newsBefore = keeper.news
  for (let nowMs = 1500; nowMs < 5000; nowMs += 500) keeper.tick(nowMs)
  assert.deepEqual([keeper.isFull, keeper.reserveBytes], [false, reserveBytes])
  assert.ok(keeper.news > newsBefore)
})

test('DiskKeeper: a reserve that does not fit after all leaves nothing behind, and growth refused', () => {
  const disk = new SimDisk({ capacityBytes: 8 * MiB })
  disk.fail({ kind: 'create', error: 'ENOSPC', path: reservePath })
  const { keeper, reports } = keeperOn(disk)
  assert.deepEqual([keeper.isFull, keeper.reserveBytes, disk.listNow('')], [true, 0, []])
  for (let nowMs = 500; nowMs <= 3000; nowMs += 500) keeper.tick(nowMs)
  assert.deepEqual([keeper.isFull, keeper.reserveBytes, reports.length], [false, reserveBytes, 0])
})

test('DiskKeeper: where the reserve cannot be made for another reason, it says so once and goes by free bytes', () => {
  const disk = new SimDisk({ capacityBytes: 8 * MiB })
  disk.fail({ kind: 'create', error: 'EIO', path: reservePath, times: Number.POSITIVE_INFINITY })
  const { keeper, reports } = keeperOn(disk)
  keeper.tick(500)
  assert.deepEqual(
    reports.map(({ code }) => code),
    ['DISK_FAILED'],
  )
  assert.deepEqual([keeper.isFull, keeper.reserveBytes], [false, 0])
  disk.capacityBytes = 10 * KiB
  keeper.tick(1000)
  assert.equal(keeper.isFull, true)
})

test('DiskKeeper: a disk that does not say what is free is gone by DISK_FULL alone', () => {
  const disk = new SimDisk()
  disk.spaceNow = () => {
    throw new SunwiseError('DISK_FAILED', 'Cannot ask for the space')
  }
  const { keeper, reports } = keeperOn(disk)
  assert.deepEqual([keeper.isFull, keeper.freeBytes, reports.length], [false, Number.POSITIVE_INFINITY, 1])
  keeper.met(500)
  assert.equal(keeper.isFull, true)
  for (let nowMs = 1000; nowMs < 4000; nowMs += 500) keeper.tick(nowMs)
  assert.equal(keeper.isFull, false)
})

test('DiskKeeper.close() waits for the reserve that is being made, and does nothing afterwards', () => {
  const random = new SeededRandom(1)
  const disk = new SimDisk({ capacityBytes: 8 * MiB, completions: 'queued', random })
  const { keeper, changes } = keeperOn(disk)
  let closed = 0
  keeper.close(() => closed++)
  keeper.close(() => closed++)
  assert.equal(closed, 0)
  const before = changes.length
  disk.drain(random)
  assert.deepEqual([closed, changes.length], [2, before])
  keeper.tick(1000)
  keeper.met(1000)
  assert.equal(disk.pendingOperations, 0)
})

test('writeDiskState() puts the state where shards and metrics look', () => {
  const disk = new SimDisk({ capacityBytes: 8 * MiB })
  const { keeper } = keeperOn(disk)
  const control = new Int32Array(controlWords)
  writeDiskState(control, keeper)
  const { diskFull, diskScarce, diskNews, diskFreeKiB, diskReserveKiB } = ControlWord
  assert.deepEqual([control[diskFull], control[diskReserveKiB]], [0, 64])
  assert.equal(control[diskFreeKiB], Math.floor(keeper.freeBytes / KiB))
  assert.equal(control[diskNews], keeper.news)
  assert.equal(control[diskScarce], 0)
  disk.capacityBytes = 100 * KiB
  keeper.tick(500)
  writeDiskState(control, keeper)
  assert.deepEqual([control[diskFull], control[diskScarce]], [1, 1])
})
