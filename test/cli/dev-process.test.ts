import assert from 'node:assert/strict'
import { PassThrough } from 'node:stream'
import { finished } from 'node:stream/promises'
import { test } from 'node:test'
import { takeLines } from '../../src/cli/dev-process.ts'

async function linesOf(...parts: readonly (string | Uint8Array)[]): Promise<string[]> {
  const stream = new PassThrough()
  const lines: string[] = []
  takeLines(stream, (line) => lines.push(line))
  for (const part of parts) stream.write(part)
  stream.end()
  await finished(stream)
  return lines
}

test('takeLines() gives whole lines, however they come, and the last one without its end', async () => {
  assert.deepEqual(await linesOf('a\nb', 'c\n\nd'), ['a', 'bc', '', 'd'])
  assert.deepEqual(await linesOf('a\n'), ['a'])
  assert.deepEqual(await linesOf(), [])
  const umlaut = Buffer.from('ü\n')
  assert.deepEqual(await linesOf(umlaut.subarray(0, 1), umlaut.subarray(1)), ['ü'])
})

test('takeLines() keeps no more of a line without an end than its bound', async () => {
  const lines = await linesOf('x'.repeat(65_535), 'y', 'z')
  assert.deepEqual(
    lines.map((line) => line.length),
    [65_536, 1],
  )
})
