import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, fsyncSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { deviceBytesRead } from '../../src/host/device-reads.ts'

test('deviceBytesRead() counts what comes from a device, and not what the page cache has', {
  skip: deviceBytesRead() === undefined && 'this system does not count',
}, () => {
  const directory = mkdtempSync(join(tmpdir(), 'sunwise-device-'))
  const path = join(directory, 'file')
  const bytes = new Uint8Array(1024 * 1024)
  const descriptor = openSync(path, 'w+')
  try {
    writeSync(descriptor, bytes)
    fsyncSync(descriptor)
    const before = deviceBytesRead()!
    for (let read = 0; read < 20; read++) readSync(descriptor, bytes, 0, bytes.length, 0)
    assert.equal(deviceBytesRead(), before, 'What was written just now is in memory')
    execFileSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0'], { stdio: 'ignore' })
    readSync(descriptor, bytes, 0, bytes.length, 0)
    const after = deviceBytesRead()!
    // A file system in memory has no device.
    assert.ok(after === before || after >= before + bytes.length / 2, `${after - before} bytes`)
  } finally {
    closeSync(descriptor)
    rmSync(directory, { recursive: true, force: true })
  }
})
