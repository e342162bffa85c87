import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { sourceUnderTest } from './source-under-test.ts'

const root = mkdtempSync(join(tmpdir(), 'sunwise-source-'))
after(() => rmSync(root, { recursive: true, force: true }))

test('sourceUnderTest() tells of any file that differs from the commit, but for evidence', () => {
  const git = (...words: string[]): void => {
    execFileSync('git', ['-c', 'user.name=a', '-c', 'user.email=a@example.org', ...words], { cwd: root })
  }
  const write = (name: string, text: string): void => writeFileSync(join(root, name), text)
  git('init', '-q')
  for (const name of ['src', 'evidence']) mkdirSync(join(root, name))
  for (const name of ['src/a.ts', 'package.json', 'evidence/runs.jsonl']) write(name, 'first')
  git('add', '.')
  git('commit', '-q', '-m', 'first')
  const { commit, isModified } = sourceUnderTest(root)
  assert.match(commit, /^[0-9a-f]{40}$/)
  assert.equal(isModified, false)
  write('evidence/runs.jsonl', 'second')
  write('untracked', 'first')
  assert.equal(sourceUnderTest(root).isModified, false)
  for (const name of ['src/a.ts', 'package.json']) {
    write(name, 'second')
    assert.equal(sourceUnderTest(root).isModified, true, name)
    write(name, 'first')
  }
  assert.equal(sourceUnderTest(root).isModified, false)
  write('src/b.ts', 'new')
  git('add', 'src/b.ts')
  assert.equal(sourceUnderTest(root).isModified, true)
})
