import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32 } from '../../src/base/crc32.ts'
import {
  endsInMark,
  groupBytes,
  groupHeaderBytes,
  groupNumber,
  groupSequence,
  groupSyncedBytes,
  groupSyncedSequence,
  isGroup,
  logFormatVersion,
  retiredMagic,
  retiredSequence,
  retirementMark,
  sealGroup,
} from '../../src/storage/log-group.ts'

const start = 8

function sealed(): { u8: Uint8Array; i32: Int32Array; end: number } {
  const u8 = new Uint8Array(64).fill(0xcc)
  const i32 = new Int32Array(u8.buffer)
  i32.set([1, -2, 3], (start + groupHeaderBytes) / 4)
  sealGroup(u8, i32, start, 44, 0xf000_0001, 2, 0xf000_0000, 0x4000_0000, crc32)
  return { u8, i32, end: start + 44 }
}

test('LogGroup: the format version is frozen with the golden vectors of records, groups and control records', () => {
  assert.equal(logFormatVersion, 1)
})

test('LogGroup: a group has exactly these bytes', () => {
  const { u8, end } = sealed()
  assert.equal(
    u8.slice(start, end).toHex(),
    [
      '53574731', // "SWG1"
      '7a97947a', // checksum
      '010000f0', // sequence
      '02000000', // group number
      '2c000000', // bytes
      '000000f0', // synced sequence
      '00000040', // synced bytes
      '00000000',
      '01000000feffffff03000000',
    ].join(''),
  )
  assert.deepEqual(u8.subarray(0, start), new Uint8Array(start).fill(0xcc))
  assert.deepEqual(u8.subarray(end), new Uint8Array(64 - end).fill(0xcc))
})

test('LogGroup: a retirement mark has exactly these bytes', () => {
  assert.equal(retirementMark(0x89ab_cdef, crc32).toHex(), '53575231b4822d34efcdab8953575231')
})

test('LogGroup: the header of a sealed group is read back, unsigned', () => {
  const { u8, i32, end } = sealed()
  assert.ok(isGroup(u8, i32, start, end, crc32))
  assert.equal(groupSequence(i32, start), 0xf000_0001)
  assert.equal(groupNumber(i32, start), 2)
  assert.equal(groupBytes(i32, start), 44)
  assert.equal(groupSyncedSequence(i32, start), 0xf000_0000)
  assert.equal(groupSyncedBytes(i32, start), 0x4000_0000)
})

test('LogGroup: every flipped bit is seen', () => {
  const { u8, i32, end } = sealed()
  for (let bit = start * 8; bit < end * 8; bit++) {
    u8[bit >>> 3]! ^= 1 << (bit & 7)
    assert.equal(isGroup(u8, i32, start, end, crc32), false, `bit ${bit}`)
    u8[bit >>> 3]! ^= 1 << (bit & 7)
  }
  assert.ok(isGroup(u8, i32, start, end, crc32))
})

test('LogGroup: a group that passes the end of the file is none, and lengths from disk lead nowhere', () => {
  const { u8, i32, end } = sealed()
  for (let cut = 0; cut < end; cut++) assert.equal(isGroup(u8, i32, start, cut, crc32), false, `cut at ${cut}`)
  for (const length of [0, 4, 28, 31, 33, 46, 0x7fff_fffc, 0xffff_fffc, 0x8000_0000]) {
    i32[start / 4 + 4] = length
    i32[start / 4 + 1] = crc32(u8, start + 8, Math.min(64, start + length))
    assert.equal(isGroup(u8, i32, start, 64, crc32), false, `a length of ${length}`)
  }
})

test('LogGroup: a retirement mark is read back, and every flipped bit of it is seen', () => {
  const u8 = new Uint8Array(32)
  const i32 = new Int32Array(u8.buffer)
  u8.set(retirementMark(0xffff_fffe, crc32), 16)
  assert.equal(retiredSequence(u8, i32, 16, crc32), 0xffff_fffe)
  assert.equal(retiredSequence(u8, i32, 0, crc32), -1)
  for (let bit = 128; bit < 256; bit++) {
    u8[bit >>> 3]! ^= 1 << (bit & 7)
    assert.equal(retiredSequence(u8, i32, 16, crc32), -1, `bit ${bit}`)
    u8[bit >>> 3]! ^= 1 << (bit & 7)
  }
})

test('LogGroup: a mark over the start of a group ends it, and no group looks like a mark', () => {
  const { u8, i32, end } = sealed()
  assert.equal(retiredSequence(u8, i32, start, crc32), -1)
  u8.set(retirementMark(groupSequence(i32, start), crc32), start)
  assert.equal(isGroup(u8, i32, start, end, crc32), false)
  assert.equal(retiredSequence(u8, i32, start, crc32), 0xf000_0001)
})

test('LogGroup: bytes whose checksum happens to hold are no mark without its last word', () => {
  const words = new Int32Array([retiredMagic, -1, -1, 0])
  const u8 = new Uint8Array(words.buffer)
  assert.equal(words[1]! >>> 0, crc32(u8, 8, 16), 'The checksum holds')
  assert.equal(retiredSequence(u8, words, 0, crc32), -1)
})

test('LogGroup: of a mark under a torn first group the end is left, and no first group looks so', () => {
  const { u8, i32 } = sealed()
  i32[start / 4 + 3] = 0
  assert.equal(endsInMark(i32, start), false)
  const header = u8.slice(start, start + 16)
  for (let cut = 0; cut <= 16; cut++) {
    u8.set(retirementMark(0x0102_0304, crc32), start)
    u8.set(header.subarray(0, cut), start)
    assert.equal(endsInMark(i32, start), cut < 16, `torn at ${cut}`)
  }
})
