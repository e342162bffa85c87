import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { runScenario } from './scenario.ts'

const files = readdirSync(import.meta.dirname).filter((name) => name.endsWith('.txt'))

test('Scenarios: there are some', () => {
  assert.ok(files.length > 5)
})

for (const file of files) {
  test(`Scenario ${file}: goes as its transcript says`, () => {
    const text = readFileSync(join(import.meta.dirname, file), 'utf8')
    assert.equal(
      runScenario(text),
      text,
      `node test/scenarios/scenario.ts test/scenarios/${file} prints what happens now`,
    )
  })
}
