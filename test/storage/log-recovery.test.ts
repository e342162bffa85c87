import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { crc32 } from '../../src/base/crc32.ts'
import { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { Arena, createArenaMemory } from '../../src/storage/arena.ts'
import { retirementMark, sealGroup, secondMarkOffset } from '../../src/storage/log-group.ts'
import { SimDisk, type SimDiskImage } from '../sim/sim-disk.ts'
import { bytesOf, decodeLogged, type LogReading, logDirectory, readLog, StoreRig, textOf } from './store-rig.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

/** One group of an undamaged log, as log-group.ts draws it, read here without the code under test. */
type Group = {
  readonly path: string
  readonly sequence: number
  readonly start: number
  readonly end: number
  readonly synced: { readonly sequence: number; readonly bytes: number }
  /** Number of the first of its records among all of the log. */
  readonly firstRecord: number
  readonly records: number
}

function groupsOf(disk: SimDisk): Group[] {
  const groups: Group[] = []
  for (const path of disk.paths().filter((name) => name.startsWith(`${logDirectory}/`))) {
    const bytes = disk.bytesOf(path)
    const view = new DataView(bytes.buffer)
    const u32 = (at: number): number => view.getUint32(at, true)
    let sequence = 0
    for (let start = 0; start + 32 <= bytes.length && u32(start) === 0x31475753; ) {
      if (start === 0) sequence = u32(8)
      if (u32(start + 8) !== sequence) break
      const end = start + u32(start + 16)
      let records = 0
      for (let at = start + 32; at < end; at += u32(at)) if ((view.getUint8(at + 12) & 0x40) === 0) records++
      const synced = { sequence: u32(start + 20), bytes: u32(start + 24) }
      groups.push({ path, sequence, start, end, synced, firstRecord: 0, records })
      start = end
    }
  }
  groups.sort((a, b) => a.sequence - b.sequence || a.start - b.start)
  let firstRecord = 0
  return groups.map((group) => {
    firstRecord += group.records
    return { ...group, firstRecord: firstRecord - group.records }
  })
}

type Position = { readonly sequence: number; readonly bytes: number }
const isBefore = (a: Position, b: Position): boolean =>
  a.sequence < b.sequence || (a.sequence === b.sequence && a.bytes < b.bytes)

/** The greatest synced position that any of these groups names. */
function syncedOf(groups: readonly Group[]): Position {
  let synced: Position = { sequence: 0, bytes: 0 }
  for (const group of groups) if (isBefore(synced, group.synced)) synced = group.synced
  return synced
}

type Sample = {
  readonly disk: SimDisk
  readonly image: SimDiskImage
  readonly groups: readonly Group[]
  /** `key=value` of every record, in the order of writing. */
  readonly written: readonly string[]
}

/** Length of a value in which one damaged bit is as good as another. */
const bulkBytes = 400

/**
 * Records in groups of one to six over at least three segments of 8 KiB, of which the second is full of small ones. `sync` says
 * after which of its groups a sync follows; without one, nothing is ever synced.
 */
function sampleLog(sync: 'each' | 'sometimes' | 'never', preallocate = false): Sample {
  const disk = new SimDisk()
  disk.makeDirectoryNow(logDirectory)
  const random = new SeededRandom(`sample ${sync}`)
  const rig = new StoreRig(disk, { preallocate, segments: 24 }).open()
  const written: string[] = []
  for (let group = 0; rig.store.segmentsUsed < 3 || written.length < 90 * scale; group++) {
    const isSynced = sync === 'each' || (sync === 'sometimes' && group % 7 === 3)
    for (let left = random.between(1, 6); left > 0; left--) {
      const length = group % 3 === 0 ? bulkBytes : random.below(60)
      const value = `value ${written.length} ${'v'.repeat(length)}`
      const key = `{one}${random.below(60)}`
      assert.equal(typeof rig.put(key, bytesOf(value), { sync: isSynced }), 'number')
      written.push(`${key}=${value}`)
    }
    rig.store.flush()
  }
  const groups = groupsOf(disk)
  assert.ok(new Set(groups.map(({ path }) => path)).size >= 3, 'The log has several segments')
  assert.equal(groups.at(-1)!.firstRecord + groups.at(-1)!.records, written.length)
  return { disk, image: disk.snapshot(), groups, written }
}

function valuesOf({ records }: LogReading): string[] {
  return records.map((record) => {
    const { key, set } = decodeLogged(record)
    return `${key}=${textOf(set.versions[0]!.value)}`
  })
}

function assertPrefix(reading: LogReading, sample: Sample, records: number, what: string): void {
  assert.equal(reading.error, undefined, `${what}: ${reading.error?.message}`)
  const values = valuesOf(reading)
  assert.equal(values.length, records, what)
  for (let index = 0; index < records; index++) assert.equal(values[index], sample.written[index], what)
}

function assertCorrupt(reading: LogReading, path: string, offset: number, what: string): void {
  assert.ok(reading.error instanceof SunwiseError, `${what}: not seen`)
  assert.equal(reading.error.code, 'LOG_CORRUPT', what)
  assert.deepEqual(reading.error.extra, { path, offset }, what)
  assert.ok(reading.error.message.includes(`"${path}"`) && reading.error.message.includes(`byte ${offset}`), what)
}

/** What must come of damage that spoils exactly one group: corruption if it was synced, else the log ends there. */
function assertVerdict(reading: LogReading, sample: Sample, damaged: Group, what: string): void {
  const rest = sample.groups.filter((group) => group !== damaged)
  if (isBefore({ sequence: damaged.sequence, bytes: damaged.start }, syncedOf(rest))) {
    assertCorrupt(reading, damaged.path, damaged.start, what)
  } else {
    assertPrefix(reading, sample, damaged.firstRecord, what)
  }
}

test('Log recovery: an undamaged log comes back whole and in order', () => {
  for (const sync of ['each', 'sometimes', 'never'] as const) {
    for (const preallocate of [false, true]) {
      const sample = sampleLog(sync, preallocate)
      const reading = readLog(sample.disk)
      assertPrefix(reading, sample, sample.written.length, sync)
      assert.equal(reading.log!.droppedBytes, 0)
      assert.deepEqual(reading.log!.damages, [])
      const last = sample.groups.at(-1)!
      assert.equal(reading.log!.endSequence, last.sequence)
      assert.equal(reading.log!.endBytes, last.end)
      assert.equal(reading.log!.sequenceMax, last.sequence)
    }
  }
})

test('Log recovery: an empty directory is an empty log', () => {
  const disk = new SimDisk()
  disk.makeDirectoryNow(logDirectory)
  const reading = readLog(disk)
  assert.equal(reading.error, undefined)
  assert.deepEqual(reading.log!.segments, [])
  assert.equal(reading.log!.endSequence, 0)
})

test('Log recovery: the last file cut at every byte gives whole groups up to there, and never refuses', () => {
  // One arena for all, so that a look behind the end of a file finds something.
  const arena = new Arena(createArenaMemory(8192, 24))
  for (const sync of ['each', 'sometimes', 'never'] as const) {
    const sample = sampleLog(sync)
    const { disk, groups } = sample
    const path = groups.at(-1)!.path
    const length = disk.bytesOf(path).length
    for (let cut = length; cut >= 0; cut -= sync === 'sometimes' || scale > 1 ? 1 : 7) {
      disk.truncate(path, cut)
      const kept = groups.filter((group) => group.path !== path || group.end <= cut)
      const records = kept.at(-1)!.firstRecord + kept.at(-1)!.records
      assertPrefix(readLog(disk, { arena }), sample, records, `${sync}: cut at ${cut}`)
    }
  }
})

test('Log recovery: every flipped bit is found where it matters, and never makes or hides a record', () => {
  // One arena for all, so that a look behind the end of a file finds something.
  const arena = new Arena(createArenaMemory(8192, 24))
  for (const sync of ['sometimes', 'each', 'never'] as const) {
    const sample = sampleLog(sync)
    const { disk, groups } = sample
    let flipped = 0
    for (const group of groups) {
      const bytes = disk.bytesOf(group.path)
      for (let offset = group.start; offset < group.end; offset++) {
        // Inside long values one bit of some bytes says as much as all.
        const isBulk = bytes[offset] === 0x76 && bytes[offset - 1] === 0x76 && bytes[offset + 1] === 0x76
        if (isBulk && offset % 32 > 0 && scale <= 1) continue
        for (const bit of isBulk || sync !== 'sometimes' ? [offset % 8] : [0, 1, 2, 3, 4, 5, 6, 7]) {
          disk.flipBit(group.path, offset, bit)
          assertVerdict(readLog(disk, { arena }), sample, group, `${sync}: ${group.path} byte ${offset} bit ${bit}`)
          disk.flipBit(group.path, offset, bit)
          flipped++
        }
      }
    }
    assert.ok(flipped > 3000)
    assertPrefix(readLog(disk), sample, sample.written.length, 'healed')
  }
})

/** Overwrites bytes of a file behind everybody's back. */
function smash(disk: SimDisk, path: string, start: number, bytes: Uint8Array): void {
  const present = disk.bytesOf(path)
  for (let offset = start; offset < Math.min(start + bytes.length, present.length); offset++) {
    for (let bit = 0; bit < 8; bit++) {
      if (((present[offset]! ^ bytes[offset - start]!) >>> bit) & 1) disk.flipBit(path, offset, bit)
    }
  }
}

test('Log recovery: sectors that are zeroed, exchanged or smashed are found or end the log, and never make a record', () => {
  const arena = new Arena(createArenaMemory(8192, 24))
  const samples = (['each', 'sometimes', 'never'] as const).map((sync) => sampleLog(sync))
  fc.assert(
    fc.property(
      fc.nat(2),
      fc.array(
        fc.record({
          file: fc.nat(2),
          sector: fc.nat(15),
          sectors: fc.integer({ min: 1, max: 4 }),
          with: fc.constantFrom('zeros', 'ones', 'neighbour', 'noise'),
        }),
        { minLength: 1, maxLength: 3 },
      ),
      (kind, damages) => {
        const sample = samples[kind]!
        const { disk } = sample
        disk.restore(sample.image)
        const intact = new Map(disk.paths().map((path) => [path, disk.bytesOf(path)]))
        for (const damage of damages) {
          const path = `${logDirectory}/0000${damage.file}.log`
          const length = damage.sectors * 512
          const bytes = new Uint8Array(length)
          if (damage.with === 'ones') bytes.fill(0xff)
          if (damage.with === 'noise') new SeededRandom(damage.sector).fill(bytes)
          if (damage.with === 'neighbour') bytes.set(disk.bytesOf(path).subarray(512, 512 + length))
          smash(disk, path, damage.sector * 512, bytes)
        }
        const reading = readLog(disk, { arena })
        if (reading.error !== undefined) assert.equal(reading.error.code, 'LOG_CORRUPT')
        const values = valuesOf(reading)
        for (const [index, value] of values.entries()) assert.equal(value, sample.written[index])
        if (reading.error !== undefined) return
        // What the undamaged part of the log calls synced is there, or there would be an error.
        const present = new Map(disk.paths().map((path) => [path, disk.bytesOf(path)]))
        const isBroken = ({ path, start, end }: Group): boolean =>
          Buffer.compare(present.get(path)!.subarray(start, end), intact.get(path)!.subarray(start, end)) !== 0
        const broken = sample.groups.find(isBroken)
        assert.equal(values.length, broken?.firstRecord ?? sample.written.length)
      },
    ),
    { numRuns: 150 * scale },
  )
})

test('Log recovery: a file that is gone is damage if it was synced, and else the end of the log', () => {
  for (const sync of ['each', 'sometimes', 'never'] as const) {
    const sample = sampleLog(sync)
    const { disk, groups } = sample
    const paths = [...new Set(groups.map(({ path }) => path))]
    for (const path of paths.slice(0, -1)) {
      disk.restore(sample.image)
      disk.remove(path, assert.ifError)
      const first = groups.find((group) => group.path === path)!
      const rest = groups.filter((group) => group.path !== path)
      const reading = readLog(disk)
      if (isBefore({ sequence: first.sequence, bytes: 0 }, syncedOf(rest))) {
        assertCorrupt(reading, `${logDirectory} (segment ${first.sequence})`, 0, `${sync}: without ${path}`)
      } else {
        assertPrefix(reading, sample, first.firstRecord, `${sync}: without ${path}`)
      }
    }
    disk.restore(sample.image)
    disk.remove(paths.at(-1)!, assert.ifError)
    const last = groups.find((group) => group.path === paths.at(-1))!
    assertPrefix(readLog(disk), sample, last.firstRecord, `${sync}: without the newest file`)
  }
})

test('Log recovery: salvage keeps every record but those of the damaged group, and names the damage', () => {
  for (const sync of ['each', 'sometimes'] as const) {
    const sample = sampleLog(sync)
    const { disk, groups } = sample
    for (const group of groups) {
      const rest = groups.filter((other) => other !== group)
      const isSynced = isBefore({ sequence: group.sequence, bytes: group.start }, syncedOf(rest))
      for (const offset of [group.start, group.start + 9, group.start + 16, group.end - 1]) {
        disk.restore(sample.image)
        disk.flipBit(group.path, offset, 6)
        const what = `${sync}: ${group.path} byte ${offset}`
        const reading = readLog(disk, { salvage: true })
        assert.equal(reading.error, undefined, what)
        const kept = isSynced
          ? sample.written.filter((_, index) => index < group.firstRecord || index >= group.firstRecord + group.records)
          : sample.written.slice(0, group.firstRecord)
        assert.deepEqual(valuesOf(reading), kept, what)
        assert.deepEqual(
          reading.log!.damages,
          isSynced ? [{ path: group.path, from: group.start, to: group.end }] : [],
          what,
        )
      }
    }
  }
})

test('Log recovery: salvage goes on around a file that is gone', () => {
  const sample = sampleLog('each')
  const { disk, groups } = sample
  const paths = [...new Set(groups.map(({ path }) => path))]
  for (const path of paths.slice(0, -1)) {
    disk.restore(sample.image)
    disk.remove(path, assert.ifError)
    const lost = groups.filter((group) => group.path === path)
    const reading = readLog(disk, { salvage: true })
    assert.equal(reading.error, undefined)
    const first = lost[0]!.firstRecord
    const end = lost.at(-1)!.firstRecord + lost.at(-1)!.records
    assert.deepEqual(
      valuesOf(reading),
      sample.written.filter((_, index) => index < first || index >= end),
    )
    const { sequence } = lost[0]!
    assert.deepEqual(reading.log!.damages, [
      { path: `${logDirectory} (segment ${sequence})`, from: 0, to: lost.at(-1)!.end },
    ])
  }
})

test('Log recovery: what was dropped behind a torn tail stays away after further starts, written to or not', () => {
  for (const writes of [0, 1, 40]) {
    const sample = sampleLog('never')
    const { disk, groups } = sample
    // The kernel lost one page in the middle of the log and kept all later ones.
    const torn = groups.find((group) => group.sequence === 1 && group.start > 4000)!
    disk.flipBit(torn.path, torn.start + 40, 0)
    let expected = sample.written.slice(0, torn.firstRecord)
    for (let start = 0; start < 4; start++) {
      const rig = new StoreRig(disk, { segments: 24 }).open()
      if (start === 0) assert.ok(rig.recovered!.droppedBytes > 0, 'A tail is dropped, and that is said')
      else if (writes > 0) assert.equal(rig.recovered!.droppedBytes, 0, 'It is dropped once')
      for (let write = 0; write < writes; write++) {
        const key = `{one}${write}`
        const value = `start ${start} ${'w'.repeat(200)}`
        assert.equal(typeof rig.put(key, bytesOf(value), { sync: write % 3 === 0 }), 'number')
        rig.store.flush()
        expected = [...expected, `${key}=${value}`]
      }
      rig.close()
      assert.deepEqual(valuesOf(readLog(disk)), expected, `start ${start}, ${writes} writes each`)
    }
  }
})

test('Log recovery: bytes of a segment that was recycled do not come back behind the end of the new one', () => {
  const disk = new SimDisk()
  disk.makeDirectoryNow(logDirectory)
  const options = { segments: 12, budgetBytes: 12 * 8192 - 4096 * 4, preallocate: true }
  const rig = new StoreRig(disk, options).open()
  let turn = 0
  const write = (): void => {
    turn++
    assert.equal(
      typeof rig.put(`{one}${turn % 4}`, bytesOf(`turn ${turn} ${'x'.repeat(turn % 300)}`), { sync: true }),
      'number',
    )
    rig.store.flush()
    rig.store.step(turn * 1000, 0)
    rig.store.flush()
  }
  while (rig.store.recycledSegments < 30) write()
  // Every state of the newest segment: its file holds whole groups of the segment that it was before.
  for (let left = 120; left > 0; left--) {
    write()
    const reading = readLog(disk)
    assert.equal(reading.error, undefined)
    const newest = new Map<string, string>()
    for (const record of reading.records) {
      const { key, set } = decodeLogged(record)
      newest.set(key, textOf(set.versions[0]!.value).split(' ')[1]!)
    }
    for (let back = 0; back < 4; back++) {
      assert.equal(newest.get(`{one}${(turn - back) % 4}`), String(turn - back))
    }
  }
})

test('Log recovery: where all was retired and the first group of the next segment is torn, what its file held before is not missed', () => {
  const { disk, groups } = sampleLog('each')
  const paths = new Map(groups.map(({ sequence, path }) => [sequence, path]))
  const newest = Math.max(...paths.keys())
  for (const [sequence, path] of paths) {
    if (sequence === 1) continue
    for (const at of [0, secondMarkOffset]) smash(disk, path, at, retirementMark(sequence, crc32))
  }
  // It reaches beyond the second mark, and only its header and some of its sectors were written.
  const torn = (sequence: number): Uint8Array => {
    const group = new Uint8Array(1024)
    sealGroup(group, new Int32Array(group.buffer), 0, 2048, sequence, 0, 0, 0, () => 7)
    return group
  }
  smash(disk, paths.get(1)!, 0, torn(newest))
  assert.equal(readLog(disk).error?.code, 'LOG_CORRUPT', 'A header of a segment that was is no next segment')
  smash(disk, paths.get(1)!, 0, torn(newest + 1))
  const reading = readLog(disk)
  assert.equal(reading.error, undefined)
  assert.deepEqual(reading.records, [])
})
