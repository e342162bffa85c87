import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ImportSplitter, type Piece } from '../../src/cli/import-splitter.ts'

/** All pieces of `input`, fed in chunks that end at `cuts`. */
function split(input: string | Uint8Array, cuts: readonly number[] = [], recordBytesMax?: number): Piece[] {
  const bytes = Buffer.from(input)
  const splitter = new ImportSplitter(recordBytesMax)
  const pieces: Piece[] = []
  let start = 0
  for (const cut of [...cuts.map((each) => each % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]) {
    pieces.push(...splitter.push(Buffer.from(bytes.subarray(start, cut))))
    start = cut
  }
  return [...pieces, ...splitter.end()]
}

const texts = (pieces: readonly Piece[]): (string | undefined)[] =>
  pieces.map(({ bytes, problem }) => (bytes === undefined ? `! ${problem}` : Buffer.from(bytes).toString()))

test('ImportSplitter cuts lines and leaves out empty ones', () => {
  assert.deepEqual(texts(split('{"a":1}\n\r\n  {"b":2}\r\n\n{"c":3}')), ['{"a":1}', '{"b":2}', '{"c":3}'])
  assert.deepEqual(
    split('\n{"a":1}\n\nx\n').map(({ ordinal, place }) => [ordinal, place]),
    [
      [1, 'line 2'],
      [2, 'line 4'],
    ],
  )
  for (const empty of ['', '\n\n', '  ', '\ufeff', '[]', ' [ ] '])
    assert.deepEqual(split(empty), [], JSON.stringify(empty))
})

test('ImportSplitter gives the elements of an array byte for byte', () => {
  const elements = ['{"a":[1,{"b":"]}"}]}', '[1, 2]', '"x,]\\"\\\\"', '-1.5e3', 'null', '{ "c" : "\\u005d" }']
  assert.deepEqual(texts(split(`\ufeff [${elements.join(' ,\n ')}]\n`)), elements)
})

test('ImportSplitter gives the same pieces however the input is cut into chunks', () => {
  fc.assert(
    fc.property(
      fc.array(fc.jsonValue(), { maxLength: 8 }),
      fc.array(fc.nat(), { maxLength: 20 }),
      fc.boolean(),
      (values, cuts, isArray) => {
        const records = values.map((value) => JSON.stringify(isArray ? value : { value }))
        const input = isArray ? `[${records.join(',')}]` : records.join('\n')
        assert.deepEqual(texts(split(input, cuts)), records)
      },
    ),
  )
})

test('ImportSplitter survives any bytes in any chunks, and stays within its memory', () => {
  const byte = fc.constantFrom(...Buffer.from('[]{},"\\ \n:a\u00ff1'))
  fc.assert(
    fc.property(fc.array(byte, { maxLength: 60 }), fc.array(fc.nat(), { maxLength: 6 }), (input, cuts) => {
      const whole = split(Uint8Array.from(input), [], 10)
      assert.deepEqual(split(Uint8Array.from(input), cuts, 10), whole)
      for (const [index, { ordinal, bytes, problem }] of whole.entries()) {
        assert.equal(ordinal, index + 1)
        assert.equal(bytes === undefined, problem !== undefined)
        assert.ok((bytes?.length ?? 0) <= 10)
      }
    }),
    { numRuns: 2_000 },
  )
})

test('ImportSplitter skips a record that is too long and reads on', () => {
  const long = `{"a":"${'x'.repeat(50)}"}`
  assert.deepEqual(texts(split(`{"b":1}\n${long}\n{"c":2}\n`, [15, 30], 20)), [
    '{"b":1}',
    '! longer than 20 bytes',
    '{"c":2}',
  ])
  assert.deepEqual(texts(split(`[{"b":1},${long},{"c":2}]`, [15, 30], 20)), [
    '{"b":1}',
    '! longer than 20 bytes',
    '{"c":2}',
  ])
})

test('ImportSplitter keeps nothing of a record that is too long already', () => {
  for (const opening of ['{"a":"', '[{"a":"']) {
    const splitter = new ImportSplitter(1_000)
    splitter.push(Buffer.from(opening))
    for (let chunk = 0; chunk < 100; chunk++) {
      assert.deepEqual(splitter.push(Buffer.alloc(400, 'x')), [])
      assert.ok(splitter.bytesKept <= 1_000, `${splitter.bytesKept} bytes kept`)
    }
  }
})

test('ImportSplitter ends an array at the first fault between its elements', () => {
  const faults: [string, string[]][] = [
    ['[{"a":1}', ['{"a":1}', '! the JSON array is not closed: the input may have been cut short']],
    ['[{"a":1', ['! the JSON array is not closed: the input may have been cut short']],
    ['[', ['! the JSON array is not closed: the input may have been cut short']],
    ['[{"a":1},', ['{"a":1}', '! the JSON array is not closed: the input may have been cut short']],
    ['[{"a":1},]', ['{"a":1}', '! an element of the JSON array is missing']],
    ['[,{"a":1}]', ['! an element of the JSON array is missing']],
    ['[{"a":1}{"b":2}]', ['{"a":1}', '! a comma is missing between two elements of the JSON array']],
    ['[{"a":1}] x', ['{"a":1}', '! something follows the end of the JSON array']],
    ['[1}', ['1', '! a comma is missing between two elements of the JSON array']],
  ]
  for (const [input, expected] of faults) assert.deepEqual(texts(split(input)), expected, input)
  const splitter = new ImportSplitter()
  splitter.push(Buffer.from('[}'))
  assert.equal(splitter.isBroken, true)
  assert.deepEqual([...splitter.push(Buffer.from('{"a":1}]')), ...splitter.end()], [])
})
