/**
 * Lock-free reads beside a writer, across real threads: no torn value, no false miss, no value of another key, no step back in
 * time, while segments are recycled and chunks split all the time. Readers that are broken on purpose must be caught by the same
 * hunt. Two of them are given more time at the place where the race is, since it is a few instructions wide; the sound reader
 * passes with the same delays.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { type HuntResult, hunt } from './hunt-owner.ts'
import { huntShrinks } from './shrink-hunt.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const seed = Date.now() % 1_000_000
const readerSource = new URL('../../src/storage/resident-reader.ts', import.meta.url)

type Patch = { readonly from: string; readonly to: string }

/** Spends time where it stands: about a microsecond with 200 spins. */
const delayOf = (spins: number): string =>
  `    for (let spin = ${spins}; spin > 0; spin--) Atomics.load(this.#control, 0)\n`

const lookAtGeneration = '    const generation = Atomics.load(arena.generations, segment)\n'
const lookAtBucket = '    const view = this.#chunks[chunk >>> chunkSlabBits]\n'
const widenings: readonly Patch[] = [lookAtGeneration, lookAtBucket].map((from) => ({ from, to: delayOf(200) + from }))

/** Each check stands in a branch for strongly and one for weakly ordered processors. */
const broken: readonly { readonly what: string; readonly patches: readonly Patch[] }[] = [
  {
    what: 'does not check the generation behind its copy',
    patches: [
      {
        from: '      if (Atomics.load(this.#arena.generations, this.#segment) !== this.#generation) return false\n',
        to: '',
      },
      {
        from: 'if (this.#segment >= 0 && Atomics.add(this.#arena.generations, this.#segment, 0) !== this.#generation)',
        to: 'if (this.#generation !== this.#generation)',
      },
    ],
  },
  {
    what: 'does not check the structure version behind its probe',
    patches: [
      // A split takes longer than a read: only a reader that stays for all of it goes wrong.
      { from: lookAtBucket, to: delayOf(10_000) + lookAtBucket },
      { from: '      this.#partitions[partition * 4] === this.#structureVersion &&\n', to: '' },
      { from: '        Atomics.add(this.#partitions, partition * 4, 0) === this.#structureVersion &&\n', to: '' },
    ],
  },
  {
    what: 'does not look at the entry again behind the generation',
    patches: [
      ...widenings,
      { from: '    if (this.#look(view, entryWord) !== (address | 0)) return ReadResult.contended\n', to: '' },
    ],
  },
]

/** Writes a changed copy of the reader where it can be imported; each patch must apply exactly once. */
function patchedReader(t: TestContext, patches: readonly Patch[]): string {
  const directory = mkdtempSync(join(tmpdir(), 'sunwise-hunt-'))
  t.after(() => rmSync(directory, { recursive: true }))
  let text = readFileSync(readerSource, 'utf8')
  for (const { from, to } of patches) {
    assert.equal(text.split(from).length, 2, `The reader has this once:\n${from}`)
    text = text.replace(from, () => to)
  }
  text = text.replace(/from '(\.[^']+)'/g, (_, path: string) => `from '${new URL(path, readerSource)}'`)
  const path = join(directory, 'resident-reader.ts')
  writeFileSync(path, text)
  return pathToFileURL(path).href
}

function diagnose(t: TestContext, result: HuntResult): void {
  t.diagnostic(`seed ${seed}: ${JSON.stringify(result)}`)
}

function assertHunted(result: HuntResult): void {
  assert.deepEqual(result.wrong, [], `seed ${seed}`)
  const seconds = result.durationMs / 1000
  assert.ok(result.recycledSegments > 20 * seconds, 'Segments were recycled all the time')
  assert.ok(result.splits > seconds, 'Chunks split all the time')
  assert.ok(result.reads > 5000 * seconds && result.hits > result.reads / 4 && result.misses > 0, 'Reads were many')
  assert.ok(result.retries > 0, 'Some reads met a change')
}

test('ResidentReader reads beside a writer what was there at some moment of the read', async (t) => {
  const result = await hunt({ seed, durationMs: 3000 * scale, readerUrl: readerSource.href })
  diagnose(t, result)
  assertHunted(result)
})

test('ResidentReader stands delays where its races are', async (t) => {
  const result = await hunt({ seed, durationMs: 2000 * scale, readerUrl: patchedReader(t, widenings) })
  diagnose(t, result)
  assertHunted(result)
})

for (const { what, patches } of broken) {
  test(`The hunt catches a reader that ${what}`, async (t) => {
    const result = await hunt({ seed, durationMs: 30_000, readerUrl: patchedReader(t, patches) })
    diagnose(t, result)
    assert.notDeepEqual(result.wrong, [], 'It was caught')
  })
}

test('ResidentReader finds what is there, and nothing else, while partitions are built anew', async (t) => {
  const result = await huntShrinks(2000 * scale, readerSource.href)
  t.diagnostic(JSON.stringify(result))
  assert.deepEqual(result.wrong, [])
  assert.ok(result.shrinks > 20, 'The partition was built anew all the time')
  assert.ok(result.reads > 10_000 && result.retries > 0, 'Reads were many, and some met a change')
})

test('ResidentReader finds what is there while partitions are built anew, however long it stays between two looks', async (t) => {
  const slow = patchedReader(t, [{ from: lookAtBucket, to: delayOf(10_000) + lookAtBucket }])
  const result = await huntShrinks(2000 * scale, slow)
  t.diagnostic(JSON.stringify(result))
  assert.deepEqual(result.wrong, [])
  assert.ok(result.shrinks > 20 && result.retries > 0, 'Reads met the change')
})

test('The hunt beside partitions that are built anew catches a reader that does not check the structure version', async (t) => {
  const { patches } = broken.find(({ what }) => what.includes('structure version'))!
  const result = await huntShrinks(30_000, patchedReader(t, patches))
  t.diagnostic(JSON.stringify(result))
  assert.notDeepEqual(result.wrong, [], 'It was caught')
})
