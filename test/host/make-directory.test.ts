import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { makeDirectories } from '../../src/host/make-directory.ts'

test('makeDirectories() makes what is missing, and leaves what is there', () => {
  const root = mkdtempSync(join(tmpdir(), 'sunwise-directories-'))
  try {
    const deep = join(root, 'a', 'b', 'c')
    makeDirectories(deep, 0o700)
    makeDirectories(deep, 0o700)
    assert.equal(statSync(deep).mode & 0o777, 0o700)
    symlinkSync(deep, join(root, 'link'))
    makeDirectories(join(root, 'link', 'd'), 0o700)
    assert.ok(existsSync(join(deep, 'd')))
    writeFileSync(join(root, 'file'), '')
    assert.throws(() => makeDirectories(join(root, 'file'), 0o700), { code: 'EEXIST' })
    assert.throws(() => makeDirectories(join(root, 'file', 'below'), 0o700), { code: /EEXIST|ENOTDIR/ })
    symlinkSync(join(root, 'nowhere'), join(root, 'dangling'))
    assert.throws(() => makeDirectories(join(root, 'dangling'), 0o700), { code: 'EEXIST' })
  } finally {
    rmSync(root, { recursive: true })
  }
})

test('makeDirectories() ends where a file system takes no directories', { skip: !existsSync('/proc/self') }, () => {
  assert.throws(() => makeDirectories('/proc/sunwise/below', 0o700), { code: /ENOENT|EACCES|EPERM/ })
})
