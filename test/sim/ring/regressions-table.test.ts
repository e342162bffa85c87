import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

test('REGRESSIONS.md names tests that exist, and every regression test stands in it', () => {
  const here = import.meta.dirname
  const rows = readFileSync(join(here, 'REGRESSIONS.md'), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| ') && !line.startsWith('| ---') && !line.startsWith('| Bug |'))
    .map((line) => line.split('|').map((cell) => cell.trim()))
  assert.ok(rows.length >= 26, `${rows.length} rows`)
  for (const [, bug, file, title] of rows) {
    const text = readFileSync(join(here, file!), 'utf8')
    assert.ok(text.includes(`test('${title}`), `${bug}: ${file} has no test that begins with "${title}"`)
  }
  const listed = rows.map(([, , file, title]) => `${file}: ${title}`)
  for (const file of ['regressions-topology.test.ts', 'regressions-damage.test.ts']) {
    for (const [, title] of readFileSync(join(here, file), 'utf8').matchAll(/^test\('([^']+)'/gm)) {
      const isListed = listed.some((row) => `${file}: ${title}`.startsWith(row))
      assert.ok(isListed || title!.startsWith('Regression: damage'), `${file}: "${title}" is not in the table`)
    }
  }
})
