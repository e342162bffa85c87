/** Segments are retired only when nothing in them can be needed again, whatever a power cut takes back. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { type LogPosition, retirementMark, secondMarkOffset } from '../../src/storage/log-group.ts'
import { SimDisk, sectorBytes } from '../sim/sim-disk.ts'
import { bytesOf, crc32, logDirectory, readLog, StoreRig } from './store-rig.ts'

const keys = ['a', 'b', 'c', 'd']
const options = { segments: 12, budgetBytes: 10 * 8192 }

function put(rig: StoreRig, key: string, version: number, sync: boolean): void {
  const ordinal = rig.put(key, bytesOf(`${version}:${'x'.repeat(600)}`), { sync })
  assert.equal(typeof ordinal, 'number', `Version ${version} of ${key} is staged`)
  rig.store.flush()
  assert.equal(rig.published, (ordinal as number) + 1, 'It is visible at once')
}

const versionOf = (rig: StoreRig, key: string): number => Number(rig.value(key)?.split(':')[0] ?? -1)

for (const copies of [0, 1]) {
  const what = copies === 0 ? 'all of whose records were overwritten' : 'with a record that is still live'
  test(`Store: a segment ${what} is retired after what is newer is on stable storage`, () => {
    let recycled = 0
    for (let seed = 0; seed < 60; seed++) {
      const random = new SeededRandom(seed)
      const disk = new SimDisk({ random: random.fork('disk') })
      disk.makeDirectoryNow(logDirectory)
      const rig = new StoreRig(disk, options).open()
      for (let index = 0; index < copies; index++) put(rig, `live${index}`, 1, true)
      for (const key of keys) put(rig, key, 1, true)
      // Overwritten again and again, and no sync: the clock of the interval stands still.
      let version = 1
      while (rig.store.recycledSegments === 0) {
        version++
        assert.ok(version < 100, 'Memory is recycled')
        for (const key of keys) put(rig, key, version, false)
        rig.store.step(0, 1)
        if (random.chance(1, 2)) rig.store.flush()
      }
      recycled += rig.store.recycledSegments
      disk.crash(random)
      const after = new StoreRig(disk, options).open()
      for (const key of keys) {
        const found = versionOf(after, key)
        assert.ok(found >= 1 && found <= version, `Seed ${seed}: ${key} holds version ${found} after a power cut`)
      }
      for (let index = 0; index < copies; index++) assert.equal(versionOf(after, `live${index}`), 1, `Seed ${seed}`)
    }
    assert.ok(recycled >= 60)
  })
}

/** All files of the log with their bytes. */
function imagesOf(disk: SimDisk): Map<string, Uint8Array> {
  const images = new Map<string, Uint8Array>()
  for (const name of disk.listNow(logDirectory)) {
    const path = `${logDirectory}/${name}`
    const file = disk.openNow(path)
    const bytes = new Uint8Array(file.sizeNow())
    file.readNow(bytes, 0, bytes.length, 0)
    file.close()
    images.set(path, bytes)
  }
  return images
}

function diskOf(images: ReadonlyMap<string, Uint8Array>): SimDisk {
  const disk = new SimDisk({ random: new SeededRandom(1) })
  disk.makeDirectoryNow(logDirectory)
  for (const [path, bytes] of images) {
    disk.create(path, 0, (error, file) => {
      assert.equal(error, undefined)
      file!.writeNow(bytes, 0, bytes.length, 0)
      file!.sync((failed) => assert.equal(failed, undefined))
      file!.close()
    })
  }
  return disk
}

test('Store: a log opens wherever a power cut tears the first groups of a segment in a retired file', () => {
  const disk = new SimDisk({ random: new SeededRandom(5) })
  disk.makeDirectoryNow(logDirectory)
  let rig = new StoreRig(disk, options).open()
  const isMarked = (image: Uint8Array | undefined): boolean => image?.subarray(0, 4).toHex() === '53575231'
  const synced = new Map<string, number>()
  const syncEvery = 9
  let version = 0
  const putNext = (): { readonly before: Map<string, Uint8Array>; readonly after: Map<string, Uint8Array> } => {
    version++
    const key = keys[version % keys.length]!
    const before = imagesOf(disk)
    const sync = version % syncEvery === 0
    const ordinal = rig.put(key, bytesOf(`${version}:${'y'.repeat(version % 3 === 0 ? 600 : 60)}`), { sync })
    assert.equal(typeof ordinal, 'number')
    rig.store.flush()
    if (sync) synced.set(key, version)
    return { before, after: imagesOf(disk) }
  }
  let cuts = 0
  let unmarked = 0
  for (let taken = 0; taken < 6; ) {
    assert.ok(version < 2000, 'Retired files are taken anew')
    if (version % 5 === 0) {
      const { recycledSegments } = rig.store
      rig.store.step(0, 1)
      // A start looks for the next file anew, and no newer segment says yet that this one is retired.
      if (rig.store.recycledSegments > recycledSegments && version % 2 === 0) {
        disk.kill(new SeededRandom(version))
        rig = new StoreRig(disk, options).open()
      }
    }
    const { syncs } = rig.store
    const kept = new Map(synced)
    const { before, after } = putNext()
    const path = [...before.keys()].find((name) => isMarked(before.get(name)) && !isMarked(after.get(name)))
    if (path === undefined || rig.store.syncs > syncs) continue
    taken++
    const later = [after]
    for (let next = putNext().after; rig.store.syncs === syncs; next = putNext().after) later.push(next)
    const groupEnd = after.get(path)!.findLastIndex((byte, index) => byte !== before.get(path)![index]) + 1
    for (const behind of [before, ...later]) {
      if (!isMarked(behind.get(path)!.subarray(sectorBytes))) unmarked++
      for (let cut = 0; cut <= Math.min(groupEnd, sectorBytes); cut += cut < 40 ? 1 : 23) {
        const image = behind.get(path)!.slice()
        image.set(before.get(path)!.subarray(0, sectorBytes))
        image.set(after.get(path)!.subarray(0, cut))
        const torn = new StoreRig(diskOf(new Map([...before, [path, image]])), options).open()
        for (const [key, least] of kept) assert.ok(versionOf(torn, key) >= least, `${path} torn at ${cut}: ${key}`)
        cuts++
      }
    }
  }
  assert.ok(cuts > 6 * 2 * 50, `${cuts} cuts`)
  assert.ok(unmarked > 4, 'The second mark was overwritten, too')
})

test('Store: where a clean stop ended the log may have been retired since, but not have gone away', () => {
  for (const isMarkedTwice of [false, true]) {
    const disk = new SimDisk({ random: new SeededRandom(6) })
    disk.makeDirectoryNow(logDirectory)
    const rig = new StoreRig(disk, options).open()
    put(rig, 'a', 1, true)
    let end: LogPosition | undefined
    rig.store.close((error, position) => {
      assert.equal(error, undefined)
      end = position
    })
    const [path, image] = [...imagesOf(disk)].find(([, bytes]) => bytes.some((byte) => byte !== 0))!
    const mark = retirementMark(end!.sequence, crc32)
    image.set(mark, 0)
    if (isMarkedTwice) image.set(mark, secondMarkOffset)
    const open = (images: Map<string, Uint8Array>, syncedEnd: LogPosition) =>
      readLog(diskOf(images), { syncedEnd }).error
    assert.equal(open(new Map([[path, image]]), end!), undefined)
    assert.equal(open(new Map([[path, image]]), { ...end!, sequence: end!.sequence + 1 })?.code, 'LOG_CORRUPT')
    assert.equal(open(new Map(), end!)?.code, 'LOG_CORRUPT')
  }
})
