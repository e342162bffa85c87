import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { SunwiseError } from '../../src/base/errors.ts'
import type { DiskFile } from '../../src/env.ts'
import { diskError, HostDisk } from '../../src/host/disk.ts'
import { SyncPace } from '../../src/host/sync-pace.ts'
import { diskSuite } from '../conformance/disk-suite.ts'

const isLinux = process.platform === 'linux'

function directoryFor(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'sunwise-disk-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** Files of Linux that fail on their own. */
function brokenFile(what: 'space' | 'write' | 'sync'): DiskFile | undefined {
  if (!isLinux) return undefined
  if (what === 'space') return new HostDisk('/dev').openNow('full')
  if (what === 'write') return new HostDisk('/proc/self').openNow('oom_score_adj')
  return new HostDisk('/dev').openNow('null')
}

diskSuite('HostDisk', (t) => {
  const directory = directoryFor(t)
  return {
    disk: new HostDisk(directory),
    restart: () => new HostDisk(directory),
    broken: brokenFile,
    full: () => (isLinux ? new HostDisk('/dev') : undefined),
  }
})

test('HostDisk keeps files and directories from other users', (t) => {
  const directory = directoryFor(t)
  const disk = new HostDisk(directory)
  disk.makeDirectoryNow('d')
  disk.createNow('d/a').close()
  assert.equal(statSync(join(directory, 'd')).mode & 0o077, 0)
  assert.equal(statSync(join(directory, 'd/a')).mode & 0o077, 0)
})

test('HostDisk counts operations, bytes, sync time and errors', async (t) => {
  const disk = new HostDisk(directoryFor(t))
  const file = disk.createNow('a')
  file.writeNow(new Uint8Array(100), 10, 60, 0)
  await new Promise((resolve) => file.write(new Uint8Array(30), 0, 30, 50, resolve))
  file.readNow(new Uint8Array(200), 0, 200, 0)
  await new Promise((resolve) => file.read(new Uint8Array(10), 0, 10, 0, resolve))
  await new Promise((resolve) => file.sync(resolve))
  assert.throws(() => disk.openNow('missing'))
  const { syncMsTotal, syncMsMax, ...rest } = disk.counters
  assert.deepEqual(rest, { reads: 2, readBytes: 90, writes: 2, writtenBytes: 80, syncs: 1, inlineSyncs: 1, errors: 1 })
  assert.ok(syncMsTotal > 0 && syncMsMax === syncMsTotal)
  file.close()
})

test('HostDisk: a sync on the pool works like one inline, and a write meanwhile is no part of it', async (t) => {
  const directory = directoryFor(t)
  const disk = new HostDisk(directory)
  for (let sync = 0; sync < 2; sync++) disk.pace.add(50, true)
  assert.equal(disk.pace.isInline, false)
  const file = disk.createNow('a')
  file.writeNow(new Uint8Array([1]), 0, 1, 0)
  let isBack = false
  const synced = new Promise<SunwiseError | undefined>((resolve) => {
    file.sync((error) => {
      isBack = true
      resolve(error)
    })
  })
  assert.equal(isBack, false, 'The callback comes later')
  file.writeNow(new Uint8Array([2]), 0, 1, 1)
  file.close()
  assert.equal(await synced, undefined)
  assert.equal(disk.counters.inlineSyncs, 0)
  assert.deepEqual([...readFileSync(join(directory, 'a'))], [1, 2])
})

test('HostDisk: an error of a sync on the pool is final, and fails syncs that were under way with it', {
  skip: !isLinux,
}, async () => {
  const disk = new HostDisk('/dev')
  for (let sync = 0; sync < 2; sync++) disk.pace.add(50, true)
  const file = disk.openNow('null')
  const results = await Promise.all(
    [1, 2].map(() => new Promise<SunwiseError | undefined>((resolve) => file.sync(resolve))),
  )
  for (const error of results) assert.equal(error?.code, 'DISK_FAILED')
  assert.throws(() => file.writeNow(new Uint8Array(1), 0, 1, 0), { code: 'DISK_FAILED' })
  file.close()
})

test('HostDisk.create() gives the disk its space back after an error', { skip: !isLinux }, async () => {
  // /dev/full takes nothing; that the file is cut back is shown by a limit on the size of files, in a process of its own.
  const { spawnSync } = await import('node:child_process')
  const directory = mkdtempSync(join(tmpdir(), 'sunwise-disk-'))
  try {
    const script = `
      process.on('SIGXFSZ', () => {})
      const { HostDisk } = await import(${JSON.stringify(join(import.meta.dirname, '../../src/host/disk.ts'))})
      const disk = new HostDisk(${JSON.stringify(directory)})
      const file = disk.createNow('a')
      file.writeNow(new Uint8Array(1000).fill(1), 0, 1000, 0)
      const bytes = 4 * 1024 * 1024
      disk.create('a', bytes, (error) => {
        console.log(error?.code, file.sizeNow())
        try {
          file.writeNow(new Uint8Array(bytes), 0, bytes, 0)
        } catch (cause) {
          console.log(cause.code, disk.counters.errors)
        }
      })`
    const limited = ['-c', 'ulimit -f 2048 && exec "$0" "$@"', process.execPath, '--input-type=module', '-e', script]
    const { stdout, stderr } = spawnSync('bash', limited, { encoding: 'utf8' })
    assert.deepEqual(stdout.trim().split('\n'), ['DISK_FAILED 1000', 'DISK_FAILED 2'], stderr)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
})

test('diskError() says what failed, on what, and keeps the cause; no space and no quota are DISK_FULL', () => {
  const system = (code: string): Error => Object.assign(new Error(`${code}: it failed`), { code })
  for (const code of ['ENOSPC', 'EDQUOT']) {
    const error = diskError('write', 'log/1', system(code))
    assert.ok(error instanceof SunwiseError)
    assert.deepEqual([error.code, error.outcome], ['DISK_FULL', 'none'])
    assert.ok(error.message.startsWith('Cannot write "log/1": ') && error.message.includes(code))
    assert.equal((error.cause as NodeJS.ErrnoException).code, code)
  }
  for (const cause of [system('EIO'), system('EROFS'), system('EMFILE'), new Error('odd'), 'text']) {
    const error = diskError('sync', 'a', cause)
    assert.deepEqual([error.code, error.outcome, error.cause], ['DISK_FAILED', 'unknown', cause])
    assert.ok(error.message.startsWith('Cannot sync "a": '))
  }
})

test('SyncPace stays inline while at most one of the latest 128 syncs took a millisecond or more', () => {
  const pace = new SyncPace()
  for (let sync = 0; sync < 1000; sync++) {
    pace.add(sync % 128 === 5 ? 40 : 0.15, true)
    assert.equal(pace.isInline, true, `after ${sync} syncs`)
  }
  pace.add(1, true)
  assert.equal(pace.isInline, false)
})

test('SyncPace leaves the inline way at the second slow sync, however few it has seen', () => {
  const pace = new SyncPace()
  pace.add(3, true)
  assert.equal(pace.isInline, true)
  pace.add(0.2, true)
  pace.add(3, true)
  assert.equal(pace.isInline, false)
})

test('SyncPace comes back inline after 128 syncs of which few were slow, and starts to count anew', () => {
  const pace = new SyncPace()
  for (let sync = 0; sync < 2; sync++) pace.add(9, true)
  // A slow device stays on the pool.
  for (let sync = 0; sync < 500; sync++) pace.add(5, false)
  assert.equal(pace.isInline, false)
  for (let sync = 0; sync < 119; sync++) pace.add(0.3, false)
  assert.equal(pace.isInline, false, 'nine of the latest 128 are slow')
  pace.add(0.3, false)
  assert.equal(pace.isInline, true)
  // Syncs that began on the pool say nothing about the inline way.
  for (let sync = 0; sync < 50; sync++) pace.add(5, false)
  assert.equal(pace.isInline, true)
  pace.add(5, true)
  assert.equal(pace.isInline, true)
})
