import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { runScenario } from './scenario.ts'

const root = join(import.meta.dirname, '..', '..')
const files = readdirSync(import.meta.dirname).filter((name) => name.endsWith('.txt'))

test('Scenarios: there are some, and the list beside them says of each what it shows', () => {
  assert.ok(files.length > 15)
  const list = readFileSync(join(import.meta.dirname, 'README.md'), 'utf8')
  const listed = [...list.matchAll(/^- \[[^\]]+\]\(([\w-]+\.txt)\): \S/gm)].map(([, name]) => name)
  assert.deepEqual(listed.sort(), files.sort())
})

/** What stands under a word at the beginning of a transcript, as one line. */
function headOf(text: string, word: string): string {
  const lines = text.split('\n')
  const first = lines.findIndex((line) => line.startsWith(`# ${word}: `))
  const isGoingOn = (line: string): boolean => line.startsWith('# ') && !/^# [A-Z][a-z]+: /.test(line)
  const length = lines.slice(first + 1).findIndex((line) => !isGoingOn(line))
  if (first < 0) return ''
  return lines
    .slice(first, first + 1 + length)
    .map((line) => line.slice(2))
    .join(' ')
    .slice(word.length + 2)
}

for (const file of files) {
  const text = readFileSync(join(import.meta.dirname, file), 'utf8')

  test(`Scenario ${file}: says first what it shows, and where that is in the sources`, () => {
    assert.ok(text.startsWith('# Shows: '))
    assert.ok(headOf(text, 'Shows').length > 40)
    const where = headOf(text, 'Where')
    const named = where.split(/(src\/[\w/-]+\.ts)/)
    assert.ok(named.length > 1, 'It names files')
    for (let place = 1; place < named.length; place += 2) {
      const [path, told] = [named[place]!, named[place + 1]!]
      assert.ok(existsSync(join(root, path)), `There is no ${path}`)
      const source = readFileSync(join(root, path), 'utf8')
      // Names stand behind a colon, and private ones behind the file anywhere until the next.
      const names = [...(/^: ([#\w]+)/.exec(told)?.slice(1) ?? []), ...(told.match(/#\w+/g) ?? [])]
      for (const name of names) assert.ok(new RegExp(`(?<![\\w#])${name}\\b`).test(source), `${path} has no ${name}`)
    }
  })

  test(`Scenario ${file}: goes as its transcript says`, () => {
    assert.equal(
      runScenario(text),
      text,
      `node test/scenarios/scenario.ts test/scenarios/${file} prints what happens now`,
    )
  })
}
