/**
 * What env.ts says of the door `Disk`, as tests that every implementation must pass. What only a simulated disk can be made to do
 * (a power cut) is tested where the implementation offers it.
 */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { AssertionError } from '../../src/base/assert.ts'
import { SunwiseError } from '../../src/base/errors.ts'
import type { Disk, DiskFile, Done } from '../../src/env.ts'

export type DiskUnderTest = {
  /** An empty disk. */
  readonly disk: Disk
  /** Ends operations that wait for somebody to end them. */
  readonly settle?: () => void
  /** The process dies; returns the disk as the next one finds it. */
  readonly restart: () => Disk
  /** The power is cut; returns the disk as the next process finds it. */
  readonly powerCut?: () => Disk
  /** An existing file of which this fails: writes for want of space, writes otherwise, syncs. Undefined: cannot be had here. */
  readonly broken?: (what: 'space' | 'write' | 'sync') => DiskFile | undefined
  /** A disk without room for a file `full` of one MiB. */
  readonly full?: () => Disk | undefined
}

export type DiskMaker = (t: TestContext) => DiskUnderTest

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text)
const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

function isCoded(code: SunwiseError['code'], path: string): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof SunwiseError, String(error))
    assert.equal(error.code, code)
    assert.ok(error.message.includes(`"${path}"`), error.message)
    assert.ok(error.cause instanceof Error, 'The cause is kept')
    return true
  }
}

/** Runs the suite against the disks that `makeDisk` makes; `name` stands before each test's name. */
export function diskSuite(name: string, makeDisk: DiskMaker): void {
  const on = (what: string, run: (under: DiskUnderTest, t: TestContext) => Promise<void> | void): void => {
    test(`${name}: ${what}`, (t) => run(makeDisk(t), t))
  }

  /** Starts an operation and waits for its callback; a second callback fails the test. */
  const outcome = <Result extends readonly unknown[]>(
    under: DiskUnderTest,
    start: (done: (...result: Result) => void) => void,
  ): Promise<Result> =>
    new Promise((resolve) => {
      let calls = 0
      start((...result) => {
        assert.equal(++calls, 1, 'The callback comes once')
        // Later than the callback itself, so that a second one is seen.
        setImmediate(() => resolve(result))
      })
      under.settle?.()
    })
  const done = async (under: DiskUnderTest, start: (done: Done) => void): Promise<void> => {
    const [error] = await outcome<[SunwiseError | undefined]>(under, start)
    if (error !== undefined) throw error
  }
  const created = async (under: DiskUnderTest, path: string, bytes: number): Promise<DiskFile> => {
    const [error, file] = await outcome<[SunwiseError | undefined, DiskFile | undefined]>(under, (callback) =>
      under.disk.create(path, bytes, callback),
    )
    if (error !== undefined) {
      assert.equal(file, undefined, 'There is no file beside an error')
      throw error
    }
    return file!
  }
  const writeText = (disk: Disk, path: string, text: string): DiskFile => {
    const file = disk.createNow(path)
    file.writeNow(bytesOf(text), 0, bytesOf(text).length, 0)
    return file
  }
  const readText = (disk: Disk, path: string): string => {
    const file = disk.openNow(path)
    const buffer = new Uint8Array(file.sizeNow())
    assert.equal(file.readNow(buffer, 0, buffer.length, 0), buffer.length)
    file.close()
    return textOf(buffer)
  }

  on('openNow() opens an existing file for reading and writing', ({ disk }) => {
    writeText(disk, 'a', 'before').close()
    const file = disk.openNow('a')
    assert.equal(file.path, 'a')
    file.writeNow(bytesOf('AFTER'), 0, 5, 1)
    file.close()
    assert.equal(readText(disk, 'a'), 'bAFTER')
  })

  on('openNow() throws DISK_FAILED where there is no file', ({ disk }) => {
    disk.makeDirectoryNow('directory')
    for (const path of ['missing', 'missing/a', 'directory']) {
      assert.throws(() => disk.openNow(path), isCoded('DISK_FAILED', path))
    }
  })

  on('createNow() creates a file, or opens it as it is', ({ disk }) => {
    const file = disk.createNow('a')
    assert.equal(file.sizeNow(), 0)
    file.writeNow(bytesOf('kept'), 0, 4, 0)
    file.close()
    const again = disk.createNow('a')
    assert.equal(again.sizeNow(), 4)
    again.close()
    assert.throws(() => disk.createNow('missing/a'), isCoded('DISK_FAILED', 'missing/a'))
  })

  on('create() makes a file of zeros that can be used at once', async (under) => {
    const bytes = 2.5 * 1024 * 1024
    const file = await created(under, 'a', bytes)
    assert.equal(file.path, 'a')
    assert.equal(file.sizeNow(), bytes)
    const buffer = new Uint8Array(bytes).fill(1)
    assert.equal(file.readNow(buffer, 0, bytes, 0), bytes)
    assert.ok(buffer.every((byte) => byte === 0))
    file.writeNow(bytesOf('x'), 0, 1, bytes - 1)
    await done(under, (callback) => file.sync(callback))
    file.close()
    assert.deepEqual(under.disk.listNow(''), ['a'])
  })

  on('create() reopens a file, keeps what it holds and only ever makes it longer', async (under) => {
    writeText(under.disk, 'a', 'content').close()
    const longer = await created(under, 'a', 10)
    longer.close()
    assert.equal(readText(under.disk, 'a'), 'content\0\0\0')
    const asItIs = await created(under, 'a', 3)
    assert.equal(asItIs.sizeNow(), 10)
    asItIs.close()
    const empty = await created(under, 'b', 0)
    assert.equal(empty.sizeNow(), 0)
    empty.close()
  })

  on('create() says DISK_FAILED where the file cannot be made', async (under) => {
    under.disk.makeDirectoryNow('directory')
    for (const path of ['missing/a', 'directory']) {
      await assert.rejects(created(under, path, 10), isCoded('DISK_FAILED', path))
    }
  })

  on('create() says DISK_FULL where there is no room', async (under, t) => {
    const disk = under.full?.()
    if (disk === undefined) return t.skip('no full disk here')
    await assert.rejects(created({ ...under, disk }, 'full', 1024 * 1024), isCoded('DISK_FULL', 'full'))
  })

  on('reads give fewer bytes only at the end of the file, and touch nothing else in the buffer', async (under) => {
    const file = writeText(under.disk, 'a', '0123456789')
    const cases = [
      { start: 0, end: 10, at: 0, text: '0123456789......' },
      { start: 2, end: 6, at: 3, text: '..3456..........' },
      { start: 1, end: 16, at: 4, text: '.456789.........' },
      { start: 0, end: 16, at: 10, text: '................' },
      { start: 0, end: 16, at: 1000, text: '................' },
      { start: 5, end: 5, at: 0, text: '................' },
    ]
    for (const { start, end, at, text } of cases) {
      const count = [...text].filter((character) => character !== '.').length
      const buffer = new Uint8Array(16).fill(46)
      assert.equal(file.readNow(buffer, start, end, at), count)
      assert.equal(textOf(buffer), text)
      buffer.fill(46)
      const [error, read] = await outcome<[SunwiseError | undefined, number]>(under, (callback) =>
        file.read(buffer, start, end, at, callback),
      )
      assert.equal(error, undefined)
      assert.equal(read, count)
      assert.equal(textOf(buffer), text)
    }
    file.close()
  })

  on('writes grow the file, and a gap reads as zeros', async (under) => {
    const file = under.disk.createNow('a')
    file.writeNow(bytesOf('xxabcxx'), 2, 5, 0)
    assert.equal(file.sizeNow(), 3)
    await done(under, (callback) => file.write(bytesOf('..def..'), 2, 5, 1000, callback))
    assert.equal(file.sizeNow(), 1003)
    file.writeNow(bytesOf(''), 0, 0, 5000)
    assert.equal(file.sizeNow(), 1003)
    file.close()
    assert.equal(readText(under.disk, 'a'), `abc${'\0'.repeat(997)}def`)
  })

  on('reads and writes work on shared memory', async (under) => {
    const shared = new Uint8Array(new SharedArrayBuffer(64))
    shared.set(bytesOf('shared'), 8)
    const file = under.disk.createNow('a')
    file.writeNow(shared, 8, 14, 0)
    await done(under, (callback) => file.write(shared, 8, 14, 6, callback))
    assert.equal(file.readNow(shared, 32, 38, 0), 6)
    const [error, count] = await outcome<[SunwiseError | undefined, number]>(under, (callback) =>
      file.read(shared, 38, 44, 6, callback),
    )
    assert.deepEqual([error, count], [undefined, 6])
    assert.equal(textOf(shared.slice(32, 44)), 'sharedshared')
    file.close()
  })

  on('a file is an array of bytes: random writes and reads give what a plain array gives', async (under) => {
    const step = fc.record({
      at: fc.nat(3000),
      bytes: fc.uint8Array({ maxLength: 1500 }),
      way: fc.constantFrom('writeNow', 'write', 'read', 'readNow', 'sync'),
    })
    let runs = 0
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        const file = under.disk.createNow(`random${runs++}`)
        let model = new Uint8Array(0)
        for (const { at, bytes, way } of steps) {
          if (way === 'sync') await done(under, (callback) => file.sync(callback))
          else if (way === 'readNow' || way === 'read') {
            const buffer = new Uint8Array(bytes.length)
            const expected = model.slice(at, at + buffer.length)
            if (way === 'readNow') assert.equal(file.readNow(buffer, 0, buffer.length, at), expected.length)
            else {
              const [, count] = await outcome<[SunwiseError | undefined, number]>(under, (callback) =>
                file.read(buffer, 0, buffer.length, at, callback),
              )
              assert.equal(count, expected.length)
            }
            assert.deepEqual(buffer.subarray(0, expected.length), expected)
          } else {
            if (way === 'writeNow') file.writeNow(bytes, 0, bytes.length, at)
            else await done(under, (callback) => file.write(bytes, 0, bytes.length, at, callback))
            if (bytes.length > 0 && at + bytes.length > model.length) {
              const longer = new Uint8Array(at + bytes.length)
              longer.set(model)
              model = longer
            }
            if (bytes.length > 0) model.set(bytes, at)
          }
          assert.equal(file.sizeNow(), model.length)
        }
        file.close()
      }),
      { numRuns: 40 },
    )
  })

  on('two objects of one file see the same bytes', ({ disk }) => {
    const one = disk.createNow('a')
    const other = disk.openNow('a')
    one.writeNow(bytesOf('one'), 0, 3, 0)
    const buffer = new Uint8Array(3)
    assert.equal(other.readNow(buffer, 0, 3, 0), 3)
    assert.equal(textOf(buffer), 'one')
    one.close()
    assert.equal(other.sizeNow(), 3)
    other.close()
  })

  on('what was written survives the death of the process without a sync', async (under) => {
    under.disk.makeDirectoryNow('d')
    const file = writeText(under.disk, 'd/a', 'written')
    await done(under, (callback) => file.write(bytesOf('!'), 0, 1, 7, callback))
    writeText(under.disk, 'd/b', 'renamed')
    await done(under, (callback) => under.disk.rename('d/b', 'd/c', callback))
    writeText(under.disk, 'd/e', 'removed')
    await done(under, (callback) => under.disk.remove('d/e', callback))
    const disk = under.restart()
    assert.deepEqual(disk.listNow('d'), ['a', 'c'])
    assert.equal(readText(disk, 'd/a'), 'written!')
    assert.equal(readText(disk, 'd/c'), 'renamed')
  })

  on('synced content under a synced entry survives a power cut', async (under, t) => {
    if (under.powerCut === undefined) return t.skip('power cuts are simulated only')
    under.disk.makeDirectoryNow('d/e')
    const file = writeText(under.disk, 'd/e/a', 'x'.repeat(3000))
    await done(under, (callback) => file.sync(callback))
    await done(under, (callback) => under.disk.syncDirectory('d/e', callback))
    const made = await created(under, 'd/made', 2000)
    made.writeNow(bytesOf('ok'), 0, 2, 1998)
    await done(under, (callback) => made.sync(callback))
    const disk = under.powerCut()
    assert.equal(readText(disk, 'd/e/a'), 'x'.repeat(3000))
    assert.equal(readText(disk, 'd/made'), `${'\0'.repeat(1998)}ok`)
  })

  on('what the calls that wait have synced survives a power cut', (under, t) => {
    if (under.powerCut === undefined) return t.skip('power cuts are simulated only')
    const { disk } = under
    disk.makeDirectoryNow('d/gone')
    writeText(disk, 'd/a', 'x'.repeat(3000)).syncNow()
    writeText(disk, 'd/b', 'y').syncNow()
    disk.removeNow('d/b')
    disk.removeNow('d/gone')
    disk.syncDirectoryNow('d')
    const after = under.powerCut()
    assert.equal(readText(after, 'd/a'), 'x'.repeat(3000))
    assert.deepEqual(after.listNow('d'), ['a'])
  })

  on('removeNow() and syncDirectoryNow() are content and complain as their other forms', ({ disk }) => {
    disk.makeDirectoryNow('d')
    writeText(disk, 'd/a', 'text')
    disk.removeNow('none')
    assert.throws(() => disk.removeNow('d'), isCoded('DISK_FAILED', 'd'))
    disk.removeNow('d/a')
    disk.removeNow('d')
    assert.deepEqual(disk.listNow(''), [])
    disk.syncDirectoryNow('')
    assert.throws(() => disk.syncDirectoryNow('none'), isCoded('DISK_FAILED', 'none'))
  })

  on('a handle reads its file, removed or not, until it is closed', ({ disk }) => {
    const a = writeText(disk, 'a', 'content of a')
    const b = writeText(disk, 'b', 'content of b')
    assert.notEqual(a.handle, b.handle)
    disk.removeNow('a')
    const buffer = new Uint8Array(new SharedArrayBuffer(20)).fill(7)
    assert.equal(disk.readHandleNow(a.handle, buffer, 2, 14, 8), 4)
    assert.equal(textOf(buffer.slice(2, 6)), 'of a')
    assert.deepEqual([buffer[1], buffer[6]], [7, 7])
    assert.equal(disk.readHandleNow(b.handle, buffer, 0, 20, 12), 0)
    a.close()
    assert.throws(
      () => disk.readHandleNow(a.handle, buffer, 0, 4, 0),
      (error) => (error as SunwiseError).code === 'DISK_FAILED',
    )
    assert.equal(disk.readHandleNow(b.handle, buffer, 0, 12, 0), 12)
    assert.equal(textOf(buffer.slice(0, 12)), 'content of b')
  })

  on('renames and removals survive a power cut once their directories are synced', async (under, t) => {
    if (under.powerCut === undefined) return t.skip('power cuts are simulated only')
    const { disk } = under
    disk.makeDirectoryNow('from')
    disk.makeDirectoryNow('to/gone')
    for (const path of ['from/a', 'from/b', 'to/b']) (await created(under, path, 1)).close()
    await done(under, (callback) => disk.rename('from/b', 'to/b', callback))
    await done(under, (callback) => disk.remove('from/a', callback))
    await done(under, (callback) => disk.remove('to/gone', callback))
    for (const path of ['from', 'to']) await done(under, (callback) => disk.syncDirectory(path, callback))
    const after = under.powerCut()
    assert.deepEqual(after.listNow('from'), [])
    assert.deepEqual(after.listNow('to'), ['b'])
  })

  on('operations under way at close() still complete, and a second close() does nothing', async (under) => {
    const file = under.disk.createNow('a')
    const bytes = new Uint8Array(256 * 1024).fill(7)
    // More than a pool of threads begins at once.
    const writes = Array.from({ length: 32 }, (_, index) =>
      outcome<[SunwiseError | undefined]>(under, (callback) =>
        file.write(bytes, 0, bytes.length, index * bytes.length, callback),
      ),
    )
    file.close()
    file.close()
    // These get the number of the descriptor if that was given up too early.
    const others = ['b', 'c', 'd'].map((path) => under.disk.createNow(path))
    for (const result of await Promise.all(writes)) assert.deepEqual(result, [undefined])
    for (const other of others) {
      assert.equal(other.sizeNow(), 0)
      other.close()
    }
    const written = readText(under.disk, 'a')
    assert.equal(written, '\u0007'.repeat(32 * bytes.length))
  })

  on('a closed file is not used, nor a range outside of its buffer', ({ disk }) => {
    const isBug = (error: unknown): boolean => error instanceof AssertionError || error instanceof assert.AssertionError
    const file = disk.createNow('a')
    const buffer = new Uint8Array(4)
    assert.throws(() => file.writeNow(buffer, 0, 5, 0), isBug)
    assert.throws(() => file.writeNow(buffer, 3, 2, 0), isBug)
    assert.throws(() => file.readNow(buffer, 0, 4, -1), isBug)
    file.close()
    assert.throws(() => file.writeNow(buffer, 0, 4, 0), isBug)
    assert.throws(() => file.readNow(buffer, 0, 4, 0), isBug)
    assert.throws(() => file.sizeNow(), isBug)
    assert.throws(() => file.sync(() => {}), isBug)
    assert.throws(() => disk.openNow('../a'), isBug)
    assert.throws(() => disk.openNow('/a'), isBug)
  })

  on('rename() replaces the target; open files keep their content', async (under) => {
    const { disk } = under
    disk.makeDirectoryNow('d')
    const old = writeText(disk, 'd/b', 'old')
    writeText(disk, 'a', 'new').close()
    await done(under, (callback) => disk.rename('a', 'd/b', callback))
    assert.equal(readText(disk, 'd/b'), 'new')
    assert.deepEqual(disk.listNow(''), ['d'])
    const buffer = new Uint8Array(3)
    old.readNow(buffer, 0, 3, 0)
    assert.equal(textOf(buffer), 'old')
    old.close()
    await done(under, (callback) => disk.rename('d/b', 'd/b', callback))
    assert.equal(readText(disk, 'd/b'), 'new')
  })

  on('rename() says DISK_FAILED where there is nothing to rename, or no place for it', async (under) => {
    writeText(under.disk, 'a', 'still').close()
    await assert.rejects(
      done(under, (callback) => under.disk.rename('missing', 'a', callback)),
      isCoded('DISK_FAILED', 'missing'),
    )
    await assert.rejects(
      done(under, (callback) => under.disk.rename('a', 'missing/a', callback)),
      (error) => error instanceof SunwiseError && error.code === 'DISK_FAILED',
    )
    assert.equal(readText(under.disk, 'a'), 'still')
  })

  on('remove() removes files and empty directories, and is content where there is nothing', async (under) => {
    const { disk } = under
    disk.makeDirectoryNow('d')
    writeText(disk, 'd/a', 'a').close()
    await assert.rejects(
      done(under, (callback) => disk.remove('d', callback)),
      isCoded('DISK_FAILED', 'd'),
    )
    for (const path of ['d/a', 'd/a', 'd', 'd', 'd/a']) await done(under, (callback) => disk.remove(path, callback))
    assert.deepEqual(disk.listNow(''), [])
    // The name is free again.
    writeText(disk, 'd', 'a file now').close()
    assert.equal(readText(disk, 'd'), 'a file now')
  })

  on('syncDirectory() syncs a directory, the root too, and says DISK_FAILED where there is none', async (under) => {
    const { disk } = under
    disk.makeDirectoryNow('d/e')
    writeText(disk, 'd/a', 'a').close()
    for (const path of ['', 'd', 'd/e']) await done(under, (callback) => disk.syncDirectory(path, callback))
    for (const path of ['missing', 'd/a']) {
      await assert.rejects(
        done(under, (callback) => disk.syncDirectory(path, callback)),
        isCoded('DISK_FAILED', path),
      )
    }
  })

  on('listNow() gives sorted names of files and directories, and nothing for no directory', ({ disk }) => {
    assert.deepEqual(disk.listNow(''), [])
    for (const path of ['b/y', 'b/x', 'B', '10']) disk.makeDirectoryNow(path)
    for (const path of ['9', 'a', 'b/z']) disk.createNow(path).close()
    assert.deepEqual(disk.listNow(''), ['10', '9', 'B', 'a', 'b'])
    assert.deepEqual(disk.listNow('b'), ['x', 'y', 'z'])
    assert.deepEqual(disk.listNow('missing'), [])
    assert.deepEqual(disk.listNow('b/missing'), [])
    assert.throws(() => disk.listNow('a'), isCoded('DISK_FAILED', 'a'))
  })

  on('makeDirectoryNow() makes parents, too, and is content with what exists', (under) => {
    const { disk } = under
    disk.makeDirectoryNow('x/y/z')
    disk.makeDirectoryNow('x/y/z')
    disk.makeDirectoryNow('x/y/w')
    assert.deepEqual(disk.listNow('x/y'), ['w', 'z'])
    disk.createNow('file').close()
    for (const path of ['file', 'file/below']) {
      assert.throws(() => disk.makeDirectoryNow(path), isCoded('DISK_FAILED', path))
    }
    const after = under.powerCut?.()
    if (after !== undefined) assert.deepEqual(after.listNow('x/y'), ['w', 'z'])
  })

  on('DISK_FULL of a write leaves the file usable', async (under, t) => {
    const file = under.broken?.('space')
    if (file === undefined) return t.skip('cannot be had here')
    const errors: unknown[] = []
    const keep = (error: unknown): true => {
      errors.push(error)
      return isCoded('DISK_FULL', file.path)(error)
    }
    assert.throws(() => file.writeNow(bytesOf('more'), 0, 4, 0), keep)
    await assert.rejects(
      done(under, (callback) => file.write(bytesOf('more'), 0, 4, 0, callback)),
      keep,
    )
    // Not a remembered failure: the disk is asked again each time.
    assert.throws(() => file.writeNow(bytesOf('more'), 0, 4, 0), keep)
    assert.equal(new Set(errors).size, 3)
    file.close()
  })

  on('any other error of a write is final for the file', async (under, t) => {
    for (const way of ['writeNow', 'write'] as const) {
      const file = under.broken?.('write')
      if (file === undefined) return t.skip('cannot be had here')
      const bad = bytesOf('not what this file takes')
      if (way === 'writeNow')
        assert.throws(() => file.writeNow(bad, 0, bad.length, 0), isCoded('DISK_FAILED', file.path))
      else {
        await assert.rejects(
          done(under, (callback) => file.write(bad, 0, bad.length, 0, callback)),
          isCoded('DISK_FAILED', file.path),
        )
      }
      await assertFinal(under, file)
    }
  })

  on('an error of a sync is DISK_FAILED and final for the file', async (under, t) => {
    const file = under.broken?.('sync')
    if (file === undefined) return t.skip('cannot be had here')
    await assert.rejects(
      done(under, (callback) => file.sync(callback)),
      isCoded('DISK_FAILED', file.path),
    )
    await assertFinal(under, file)
  })

  on('an error of syncNow() is DISK_FAILED and final for the file', async (under, t) => {
    const file = under.broken?.('sync')
    if (file === undefined) return t.skip('cannot be had here')
    assert.throws(() => file.syncNow(), isCoded('DISK_FAILED', file.path))
    await assertFinal(under, file)
  })

  /** Every write and sync fails with DISK_FAILED; reads go on. */
  const assertFinal = async (under: DiskUnderTest, file: DiskFile): Promise<void> => {
    const good = bytesOf('0')
    for (let tries = 0; tries < 2; tries++) {
      assert.throws(() => file.writeNow(good, 0, 1, 0), isCoded('DISK_FAILED', file.path))
      await assert.rejects(
        done(under, (callback) => file.write(good, 0, 1, 0, callback)),
        isCoded('DISK_FAILED', file.path),
      )
      await assert.rejects(
        done(under, (callback) => file.sync(callback)),
        isCoded('DISK_FAILED', file.path),
      )
      assert.throws(() => file.syncNow(), isCoded('DISK_FAILED', file.path))
    }
    assert.ok(file.readNow(new Uint8Array(8), 0, 8, 0) >= 0)
    file.close()
  }
}
