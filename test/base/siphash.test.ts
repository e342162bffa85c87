import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SipHash } from '../../src/base/siphash.ts'

const key = Uint8Array.from({ length: 16 }, (_, index) => index)
const message = Uint8Array.from({ length: 64 }, (_, index) => index)

/** `vectors_sip64` of the authors' reference implementation: key 00..0f, message 00..length-1, code bytes low first. */
const official = [
  '310e0edd47db6f72 fd67dc93c539f874 5a4fa9d909806c0d 2d7efbd796666785',
  'b7877127e09427cf 8da699cd64557618 cee3fe586e46c9cb 37d1018bf50002ab',
  '6224939a79f5f593 b0e4a90bdf82009e f3b9dd94c5bb5d7a a7ad6b22462fb3f4',
  'fbe50e86bc8f1e75 903d84c02756ea14 eef27a8e90ca23f7 e545be4961ca29a1',
  'db9bc2577fcc2a3f 9447be2cf5e99a69 9cd38d96f0b3c14b bd6179a71dc96dbb',
  '98eea21af25cd6be c7673b2eb0cbf2d0 883ea3e395675393 c8ce5ccd8c030ca8',
  '94af49f6c650adb8 eab8858ade92e1bc f315bb5bb835d817 adcf6b0763612e2f',
  'a5c91da7acaa4dde 716595876650a2a6 28ef495c53a387ad 42c341d8fa92d832',
  'ce7cf2722f512771 e37859f94623f3a7 381205bb1ab0e012 ae97a10fd434e015',
  'b4a31508beff4d31 81396229f0907902 4d0cf49ee5d4dcca 5c73336a76d8bf9a',
  'd0a704536ba93e0e 925958fcd6420cad a915c29bc8067318 952b79f3bc0aa6d4',
  'f21df2e41d4535f9 87577519048f53a9 10a56cf5dfcd9adb eb75095ccd986cd0',
  '51a9cb9ecba312e6 96afadfc2ce666c7 72fe52975a4364ee 5a1645b276d592a1',
  'b274cb8ebf87870a 6f9bb4203de7b381 eaecb2a30b22a87f 9924a43cc1315724',
  'bd838d3aafbf8db7 0b1a2a3265d51aea 135079a3231ce660 932b2846e4d70666',
  'e1915f5cb1eca46c f325965ca16d629f 575ff28e60381be5 724506eb4c328a95',
].flatMap((line) => line.split(' '))

function littleEndianHex(hash: SipHash): string {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setUint32(0, hash.low, true)
  new DataView(bytes.buffer).setUint32(4, hash.high, true)
  return bytes.toHex()
}

function codeOf(hash: SipHash, bytes: Uint8Array): string {
  hash.start()
  hash.update(bytes, 0, bytes.length)
  hash.finish()
  return littleEndianHex(hash)
}

test('SipHash gives the 64 official codes of SipHash-2-4', () => {
  const hash = new SipHash(key)
  assert.equal(official.length, 64)
  assert.deepEqual(
    official.map((_, length) => codeOf(hash, message.subarray(0, length))),
    official,
  )
})

test('SipHash.finish() gives the example of the paper as two u32 halves', () => {
  const hash = new SipHash(key)
  hash.update(message, 0, 15)
  hash.finish()
  assert.equal(hash.high, 0xa129ca61)
  assert.equal(hash.low, 0x49be45e5)
})

test('SipHash.update() hashes only the range it is given', () => {
  const hash = new SipHash(key)
  const padded = new Uint8Array(80).fill(0xee)
  padded.set(message.subarray(0, 23), 7)
  hash.start()
  hash.update(padded, 7, 30)
  hash.finish()
  assert.equal(littleEndianHex(hash), official[23])
})

test('SipHash.update() and updateU32() give one code however the message is cut', () => {
  const hash = new SipHash(key)
  const piece = fc.oneof(fc.uint8Array({ maxLength: 40 }), fc.integer({ min: 0, max: 0xffffffff }))
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      const whole: number[] = []
      hash.start()
      for (const part of pieces) {
        if (typeof part === 'number') {
          hash.updateU32(part)
          whole.push(part & 0xff, (part >>> 8) & 0xff, (part >>> 16) & 0xff, part >>> 24)
        } else {
          hash.update(part, 0, part.length)
          whole.push(...part)
        }
      }
      hash.finish()
      const pieced = littleEndianHex(hash)
      assert.equal(pieced, codeOf(hash, Uint8Array.from(whole)))
    }),
    { numRuns: 500 },
  )
})

test('SipHash.start() forgets an unfinished message', () => {
  const hash = new SipHash(key)
  hash.update(message, 0, 13)
  assert.equal(codeOf(hash, message.subarray(0, 9)), official[9])
})

test('SipHash depends on every bit of the key', () => {
  const seen = new Set<string>([codeOf(new SipHash(key), message)])
  for (let bit = 0; bit < 128; bit++) {
    const other = key.slice()
    other[bit >>> 3]! ^= 1 << (bit & 7)
    seen.add(codeOf(new SipHash(other), message))
  }
  assert.equal(seen.size, 129)
})

test('SipHash refuses a key that has not 16 bytes, and a range outside its bytes', () => {
  assert.throws(() => new SipHash(new Uint8Array(15)), /16 bytes/)
  assert.throws(() => new SipHash(new Uint8Array(17)), /16 bytes/)
  const hash = new SipHash(key)
  for (const [start, end] of [
    [-1, 2],
    [3, 2],
    [0, 65],
  ] as const) {
    assert.throws(() => hash.update(message, start, end), /range/)
  }
})
