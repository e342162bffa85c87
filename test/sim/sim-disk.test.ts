import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import type { Disk, DiskFile } from '../../src/env.ts'
import { diskSuite } from '../conformance/disk-suite.ts'
import { type DiskCallKind, diskCallKinds, SimCrash, SimDisk, type SimDiskOptions, sectorBytes } from './sim-disk.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

for (const completions of ['immediate', 'queued'] as const) {
  diskSuite(`SimDisk, ${completions}`, () => {
    const disk = new SimDisk({ completions })
    const random = new SeededRandom('suite')
    const broken = (what: 'space' | 'write' | 'sync'): DiskFile => {
      const file = disk.createNow('broken')
      if (what === 'space') disk.capacityBytes = 0
      else disk.fail({ kind: what, error: 'EIO' })
      return file
    }
    return {
      disk,
      settle: () => disk.drain(random),
      restart: () => {
        disk.kill(random)
        return disk
      },
      powerCut: () => {
        disk.crash(random)
        return disk
      },
      broken,
      full: () => new SimDisk({ completions: 'immediate', capacityBytes: 1024 * 1024 - 1 }),
    }
  })
}

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text)
const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)
const fail = (): never => assert.fail('The callback never comes')

function write(file: DiskFile, text: string, at = 0): void {
  file.writeNow(bytesOf(text), 0, text.length, at)
}

/** The result of an operation on a disk that calls back at once. */
function resultOf(start: (done: (error: SunwiseError | undefined) => void) => void): string | undefined {
  const results: (string | undefined)[] = []
  start((error) => results.push(error?.code))
  assert.equal(results.length, 1)
  return results[0]
}

function codeOf(run: () => void): string {
  try {
    run()
  } catch (error) {
    if (error instanceof SunwiseError) return error.code
    if (error instanceof SimCrash) return 'SimCrash'
    throw error
  }
  return 'done'
}

/** A disk with one durable file `a` of this content. */
function diskWith(text: string, options: SimDiskOptions = {}): { disk: SimDisk; file: DiskFile } {
  const disk = new SimDisk(options)
  const file = disk.createNow('a')
  write(file, text)
  assert.equal(
    resultOf((done) => file.sync(done)),
    undefined,
  )
  assert.equal(
    resultOf((done) => disk.syncDirectory('', done)),
    undefined,
  )
  return { disk, file }
}

/** What crashes with different draws leave of `path`, as a set of texts; `-` where it is gone. */
function fatesOf(prepare: () => SimDisk, path: string, seeds = 200): Set<string> {
  const fates = new Set<string>()
  for (let seed = 0; seed < seeds; seed++) {
    const disk = prepare()
    disk.crash(new SeededRandom(seed))
    fates.add(disk.paths().includes(path) ? textOf(disk.bytesOf(path)) : '-')
  }
  return fates
}

const sectors = (...letters: string[]): string => letters.map((letter) => letter.repeat(sectorBytes)).join('')

test('a power cut leaves each unsynced sector old or new, whatever the order of the writes', () => {
  const fates = fatesOf(() => {
    const { disk, file } = diskWith(sectors('a', 'a', 'a', 'a'))
    write(file, sectors('b', 'b'), 0)
    write(file, sectors('c', 'c'), 2 * sectorBytes)
    return disk
  }, 'a')
  // Torn sectors aside, all 16 combinations occur.
  const whole = new Set(
    [...fates]
      .map((fate) => fate.match(new RegExp(`.{${sectorBytes}}`, 'g'))!)
      .filter(areWhole)
      .map(firstLetters),
  )
  const expected = [...'ab'].flatMap((one) =>
    [...'ab'].flatMap((two) => [...'ac'].flatMap((three) => [...'ac'].map((four) => one + two + three + four))),
  )
  assert.deepEqual([...whole].sort(), expected.sort())
})

const areWhole = (found: readonly string[]): boolean => found.every((sector) => new Set(sector).size === 1)
const firstLetters = (found: readonly string[]): string => found.map((sector) => sector[0]).join('')

test('a power cut tears only the last sector of a write, and leaves the new bytes first', () => {
  const torn = new Set<number>()
  for (let seed = 0; seed < 300; seed++) {
    const { disk, file } = diskWith(sectors('a', 'a'))
    write(file, sectors('b') + 'b'.repeat(200), 0)
    disk.crash(new SeededRandom(seed))
    const found = textOf(disk.bytesOf('a'))
    assert.match(found, /^(a{512}|b{512})b{0,200}a{312,512}$/)
    torn.add(found.slice(sectorBytes).lastIndexOf('b') + 1)
  }
  assert.ok(torn.has(0) && torn.has(200) && torn.size > 20, [...torn].join())
})

test('a power cut may leave any later content of a sector that was written several times', () => {
  const fates = fatesOf(() => {
    const { disk, file } = diskWith(sectors('a'))
    for (const letter of ['b', 'c', 'd']) write(file, sectors(letter), 0)
    return disk
  }, 'a')
  for (const letter of 'abcd') assert.ok(fates.has(sectors(letter)), letter)
})

test('a power cut leaves the durable size of a file or a later one, with zeros where content is lost', () => {
  const sizes = new Set<number>()
  let zeros = 0
  for (let seed = 0; seed < 200; seed++) {
    const { disk, file } = diskWith('a'.repeat(100))
    write(file, 'b'.repeat(900), 100)
    write(file, 'c'.repeat(600), 1000)
    disk.crash(new SeededRandom(seed))
    const found = textOf(disk.bytesOf('a'))
    sizes.add(found.length)
    assert.match(found, /^a{100}[b\0]*[c\0]*$/)
    if (found.includes('\0')) zeros++
    // What the size cut off does not come back when the file grows again.
    write(disk.openNow('a'), 'end', found.length + 100)
    assert.equal(textOf(disk.bytesOf('a')).slice(found.length), `${'\0'.repeat(100)}end`)
  }
  assert.deepEqual(
    [...sizes].sort((a, b) => a - b),
    [100, 1000, 1600],
  )
  assert.ok(zeros > 0)
})

test('a sync makes durable what was written before it, and nothing later', () => {
  const fates = fatesOf(() => {
    const { disk, file } = diskWith(sectors('a', 'a'))
    write(file, sectors('b'), 0)
    assert.equal(disk.isSynced('a'), false)
    assert.equal(
      resultOf((done) => file.sync(done)),
      undefined,
    )
    assert.equal(disk.isSynced('a'), true)
    write(file, sectors('c'), sectorBytes)
    return disk
  }, 'a')
  for (const fate of fates) assert.match(fate, /^b{512}c*a*$/)
  assert.ok(fates.has(sectors('b', 'a')) && fates.has(sectors('b', 'c')))
})

test('a sync under way covers the writes that were done when it was called', () => {
  const random = new SeededRandom(1)
  const disk = new SimDisk({ completions: 'queued' })
  disk.create('a', 2 * sectorBytes, () => {})
  disk.drain(random)
  const file = disk.openNow('a')
  write(file, sectors('b'), 0)
  file.sync((error) => assert.equal(error, undefined))
  write(file, sectors('c'), 0)
  write(file, sectors('c'), sectorBytes)
  disk.drain(random)
  assert.equal(textOf(disk.durableBytesOf('a')), sectors('b', '\0'))
  assert.equal(textOf(disk.bytesOf('a')), sectors('c', 'c'))
})

test('entries that were not synced survive a power cut or not, each for itself', () => {
  const seen = new Set<string>()
  for (let seed = 0; seed < 300; seed++) {
    const disk = new SimDisk()
    disk.makeDirectoryNow('d')
    for (const name of ['old', 'gone', 'from'])
      assert.equal(
        resultOf((done) => disk.create(`d/${name}`, 1, (error) => done(error))),
        undefined,
      )
    disk.createNow('d/new').close()
    assert.equal(
      resultOf((done) => disk.remove('d/gone', done)),
      undefined,
    )
    assert.equal(
      resultOf((done) => disk.rename('d/from', 'd/to', done)),
      undefined,
    )
    disk.crash(new SeededRandom(seed))
    const names = disk.listNow('d')
    assert.ok(names.includes('old'))
    assert.ok(names.includes('from') || names.includes('to'), 'A rename never loses the file')
    seen.add(names.join())
  }
  // gone or not, new or not, and from, to or both.
  assert.equal(seen.size, 12, [...seen].join(' '))
})

test('what is made durably again is not taken away by an earlier removal that was not synced', () => {
  for (let seed = 0; seed < 40; seed++) {
    const disk = new SimDisk()
    disk.makeDirectoryNow('d')
    disk.create('a', 1, () => {})
    for (const path of ['d', 'a'])
      assert.equal(
        resultOf((done) => disk.remove(path, done)),
        undefined,
      )
    disk.makeDirectoryNow('d/e')
    disk.create('a', 2, () => {})
    const image = disk.snapshot()
    disk.crash(new SeededRandom(seed))
    assert.deepEqual(disk.listNow(''), ['a', 'd'])
    assert.deepEqual(disk.listNow('d'), ['e'])
    assert.equal(disk.bytesOf('a').length, 2)
    disk.restore(image)
    assert.equal(
      resultOf((done) => disk.syncDirectory('', done)),
      undefined,
    )
    disk.crash(new SeededRandom(seed))
    assert.deepEqual(disk.listNow(''), ['a', 'd'])
  }
})

test('a file whose content was synced and whose entry was not may be gone after a power cut', () => {
  const fates = fatesOf(() => {
    const disk = new SimDisk()
    const file = disk.createNow('a')
    write(file, 'content')
    assert.equal(
      resultOf((done) => file.sync(done)),
      undefined,
    )
    return disk
  }, 'a')
  assert.deepEqual([...fates].sort(), ['-', 'content'])
})

test('a replaced file keeps its old content under the name where the rename is lost', () => {
  const fates = fatesOf(() => {
    const { disk } = diskWith('old')
    disk.create('b', 0, (_, file) => {
      write(file!, 'new')
      file!.sync(() => {})
    })
    assert.equal(
      resultOf((done) => disk.rename('b', 'a', done)),
      undefined,
    )
    return disk
  }, 'a')
  assert.deepEqual([...fates].sort(), ['new', 'old'])
})

test('the death of the process loses no write that was done, and ends its files and callbacks', () => {
  for (let seed = 0; seed < 20; seed++) {
    const disk = new SimDisk({ completions: 'queued' })
    const file = disk.createNow('a')
    write(file, 'written')
    file.write(bytesOf(sectors('x', 'x')), 0, 2 * sectorBytes, 7, fail)
    file.sync(fail)
    disk.remove('a', fail)
    disk.kill(new SeededRandom(seed))
    disk.drain(new SeededRandom(seed))
    assert.equal(disk.pendingOperations, 0)
    assert.throws(() => write(file, 'zombie'), SimCrash)
    if (disk.paths().length > 0) assert.match(textOf(disk.bytesOf('a')), /^writtenx*$/)
  }
})

test('an error of a sync loses its pages: they can be read, no later sync saves them, a power cut or the kernel drops them', () => {
  const prepare = (): { disk: SimDisk; file: DiskFile } => {
    const { disk, file } = diskWith(sectors('a', 'a'))
    write(file, sectors('b'), 0)
    disk.fail({ kind: 'sync', error: 'EIO' })
    assert.equal(
      resultOf((done) => file.sync(done)),
      'DISK_FAILED',
    )
    // The file object refuses from now on; who opens the file anew is told that all is well.
    assert.equal(
      resultOf((done) => file.sync(done)),
      'DISK_FAILED',
    )
    const again = disk.openNow('a')
    assert.equal(
      resultOf((done) => again.sync(done)),
      undefined,
    )
    return { disk, file: again }
  }
  assert.equal(textOf(prepare().disk.bytesOf('a')), sectors('b', 'a'))
  assert.equal(textOf(prepare().disk.durableBytesOf('a')), sectors('a', 'a'))
  const { disk } = prepare()
  assert.equal(disk.isSynced('a'), false)
  disk.dropCaches()
  assert.equal(textOf(disk.bytesOf('a')), sectors('a', 'a'))
  const fates = fatesOf(() => prepare().disk, 'a')
  assert.deepEqual([...fates].sort(), [sectors('a', 'a'), sectors('b', 'a')])
  // Writing the sector again brings it back.
  const { disk: rewritten, file } = prepare()
  write(file, 'B', 0)
  assert.equal(
    resultOf((done) => file.sync(done)),
    undefined,
  )
  assert.equal(textOf(rewritten.durableBytesOf('a')), `B${'b'.repeat(511)}${sectors('a')}`)
})

test('an error of a directory sync loses the changes that it covered', () => {
  const seen = new Set<string>()
  for (let seed = 0; seed < 30; seed++) {
    const disk = new SimDisk()
    disk.createNow('a').close()
    disk.fail({ kind: 'syncDirectory', error: 'ENOSPC' })
    assert.equal(
      resultOf((done) => disk.syncDirectory('', done)),
      'DISK_FAILED',
    )
    assert.equal(
      resultOf((done) => disk.syncDirectory('', done)),
      undefined,
    )
    assert.deepEqual(disk.paths(), ['a'])
    disk.crash(new SeededRandom(seed))
    seen.add(disk.paths().join())
  }
  assert.deepEqual([...seen].sort(), ['', 'a'])
})

test('a lying sync reports success and saves nothing; an honest one afterwards does', () => {
  const { disk, file } = diskWith('old')
  write(file, 'new')
  disk.createNow('b').close()
  disk.fail({ kind: 'sync', error: 'lie' })
  disk.fail({ kind: 'syncDirectory', error: 'lie' })
  assert.equal(
    resultOf((done) => file.sync(done)),
    undefined,
  )
  assert.equal(
    resultOf((done) => disk.syncDirectory('', done)),
    undefined,
  )
  assert.equal(textOf(disk.durableBytesOf('a')), 'old')
  const image = disk.snapshot()
  const fates = new Set<string>()
  for (let seed = 0; seed < 40; seed++) {
    disk.restore(image)
    disk.crash(new SeededRandom(seed))
    fates.add(`${disk.paths().join()} ${textOf(disk.bytesOf('a'))}`)
  }
  assert.ok(fates.has('a old') && fates.has('a,b new'))
  disk.restore(image)
  assert.equal(
    resultOf((done) => disk.openNow('a').sync(done)),
    undefined,
  )
  assert.equal(textOf(disk.durableBytesOf('a')), 'new')
  assert.throws(() => disk.fail({ kind: 'write', error: 'lie' }))
})

test('fail() lets the chosen call fail and no other: by kind, path, number and count', () => {
  const disk = new SimDisk()
  disk.makeDirectoryNow('d')
  const a = disk.createNow('a')
  const b = disk.createNow('d/b')
  disk.fail({ kind: 'write', error: 'ENOSPC', path: 'd', nth: 2, times: 2 })
  const codes = (file: DiskFile): string[] => Array.from({ length: 5 }, () => codeOf(() => write(file, 'x')))
  assert.deepEqual(codes(a), ['done', 'done', 'done', 'done', 'done'])
  assert.deepEqual(codes(b), ['done', 'DISK_FULL', 'DISK_FULL', 'done', 'done'])
  disk.fail({ kind: 'read', error: 'EIO', times: Number.POSITIVE_INFINITY })
  for (let read = 0; read < 5; read++)
    assert.equal(
      codeOf(() => a.readNow(new Uint8Array(1), 0, 1, 0)),
      'DISK_FAILED',
    )
  assert.equal(
    resultOf((done) => a.read(new Uint8Array(1), 0, 1, 0, (error) => done(error))),
    'DISK_FAILED',
  )
  // A dead disk is dead for the next process, too.
  disk.kill(new SeededRandom(1))
  assert.equal(
    codeOf(() => disk.openNow('a').readNow(new Uint8Array(1), 0, 1, 0)),
    'DISK_FAILED',
  )
  disk.heal()
  assert.equal(
    codeOf(() => disk.openNow('a').readNow(new Uint8Array(1), 0, 1, 0)),
    'done',
  )
})

test('every kind of call can fail, with either error', () => {
  const calls: Record<DiskCallKind, (disk: Disk, file: DiskFile) => string | undefined> = {
    open: (disk) => codeOf(() => disk.openNow('a')),
    create: (disk) => codeOf(() => disk.createNow('b')),
    size: (_, file) => codeOf(() => file.sizeNow()),
    read: (_, file) => codeOf(() => file.readNow(new Uint8Array(1), 0, 1, 0)),
    write: (_, file) => resultOf((done) => file.write(new Uint8Array(1), 0, 1, 0, done)),
    sync: (_, file) => resultOf((done) => file.sync(done)),
    rename: (disk) => resultOf((done) => disk.rename('a', 'b', done)),
    remove: (disk) => resultOf((done) => disk.remove('a', done)),
    syncDirectory: (disk) => resultOf((done) => disk.syncDirectory('', done)),
    list: (disk) => codeOf(() => disk.listNow('')),
    makeDirectory: (disk) => codeOf(() => disk.makeDirectoryNow('d')),
  }
  for (const kind of diskCallKinds) {
    for (const error of ['EIO', 'ENOSPC'] as const) {
      const { disk, file } = diskWith('x')
      disk.fail({ kind, error })
      const before = disk.calls[kind]
      const isFinal = error === 'EIO' || kind === 'sync' || kind === 'syncDirectory'
      assert.equal(calls[kind](disk, file), isFinal ? 'DISK_FAILED' : 'DISK_FULL', `${kind} ${error}`)
      assert.equal(disk.calls[kind], before + 1)
    }
  }
  const { disk } = diskWith('x')
  disk.fail({ kind: 'create', error: 'ENOSPC' })
  assert.equal(
    resultOf((done) =>
      disk.create('b', 10, (error, file) => {
        assert.equal(file, undefined)
        done(error)
      }),
    ),
    'DISK_FULL',
  )
})

test('an error of a rename or removal leaves it done or not done', () => {
  const seen = new Set<string>()
  for (let seed = 0; seed < 40; seed++) {
    const { disk } = diskWith('x', { random: new SeededRandom(seed) })
    disk.fail({ kind: 'rename', error: 'EIO' })
    assert.equal(
      resultOf((done) => disk.rename('a', 'b', done)),
      'DISK_FAILED',
    )
    seen.add(disk.paths().join())
    disk.fail({ kind: 'remove', error: 'EIO' })
    assert.equal(
      resultOf((done) => disk.remove(disk.paths()[0]!, done)),
      'DISK_FAILED',
    )
    seen.add(disk.paths().join())
  }
  assert.deepEqual([...seen].sort(), ['', 'a', 'b'])
})

test('a short write leaves the bytes that were chosen, and any number if none was', () => {
  const { disk, file } = diskWith('aaaaaaaa')
  disk.fail({ kind: 'write', error: 'ENOSPC', writtenBytes: 3 })
  assert.equal(
    codeOf(() => write(file, 'bbbbbb')),
    'DISK_FULL',
  )
  assert.equal(textOf(disk.bytesOf('a')), 'bbbaaaaa')
  const counts = new Set<number>()
  for (let seed = 0; seed < 60; seed++) {
    const { disk: other, file: broken } = diskWith('aaaa', { random: new SeededRandom(seed) })
    other.fail({ kind: 'write', error: 'EIO' })
    assert.equal(
      codeOf(() => write(broken, 'bbbb')),
      'DISK_FAILED',
    )
    counts.add([...textOf(other.bytesOf('a'))].filter((letter) => letter === 'b').length)
  }
  assert.deepEqual([...counts].sort(), [0, 1, 2, 3, 4])
})

test('capacity: what does not fit is DISK_FULL, room comes back with removals, and writes into made room always fit', () => {
  const disk = new SimDisk({ capacityBytes: 8 * sectorBytes })
  let made: DiskFile | undefined
  disk.create('made', 4 * sectorBytes, (error, file) => {
    assert.equal(error, undefined)
    made = file
  })
  assert.equal(disk.usedBytes, 4 * sectorBytes)
  assert.equal(
    resultOf((done) => disk.create('more', 5 * sectorBytes, (error) => done(error))),
    'DISK_FULL',
  )
  assert.equal(disk.usedBytes, 4 * sectorBytes, 'What did not fit was given back')
  const other = disk.createNow('other')
  assert.equal(
    codeOf(() => write(other, 'x'.repeat(4 * sectorBytes + 10))),
    'DISK_FULL',
  )
  assert.equal(other.sizeNow(), 4 * sectorBytes, 'What fits is written')
  write(made!, sectors('y', 'y', 'y', 'y'))
  assert.equal(
    codeOf(() => write(made!, 'z', 4 * sectorBytes)),
    'DISK_FULL',
  )
  assert.equal(
    resultOf((done) => disk.remove('other', done)),
    undefined,
  )
  assert.equal(
    codeOf(() => write(made!, 'z', 4 * sectorBytes)),
    'done',
  )
  disk.crash(new SeededRandom(1))
  const total = disk
    .paths()
    .reduce((sum, path) => sum + Math.ceil(disk.bytesOf(path).length / sectorBytes) * sectorBytes, 0)
  assert.equal(disk.usedBytes, total)
})

test('flipBit() and truncate() change what readers get and what a power cut leaves', () => {
  const { disk, file } = diskWith(sectors('a', 'a'))
  write(file, 'c', 600)
  disk.flipBit('a', 0, 1)
  disk.flipBit('a', 600, 0)
  assert.equal(disk.bytesOf('a')[0], 'a'.charCodeAt(0) ^ 2)
  assert.equal(disk.bytesOf('a')[600], 'c'.charCodeAt(0) ^ 1)
  const image = disk.snapshot()
  for (let seed = 0; seed < 20; seed++) {
    disk.restore(image)
    disk.crash(new SeededRandom(seed))
    assert.equal(disk.bytesOf('a')[0], 'a'.charCodeAt(0) ^ 2)
    assert.ok(['`', 'b'].includes(String.fromCharCode(disk.bytesOf('a')[600]!)))
  }
  disk.restore(image)
  disk.truncate('a', 700)
  assert.equal(disk.openNow('a').sizeNow(), 700)
  assert.equal(disk.usedBytes, 2 * sectorBytes)
  const again = disk.openNow('a')
  write(again, 'end', 900)
  disk.crash(new SeededRandom(3))
  assert.ok([700, 903].includes(disk.bytesOf('a').length))
  assert.ok(
    disk
      .bytesOf('a')
      .subarray(700, 900)
      .every((byte) => byte === 0),
    'Nothing of what was cut off comes back',
  )
})

test('snapshot() and restore() hold the page cache, too, and are copies', () => {
  const { disk, file } = diskWith(sectors('a'))
  write(file, sectors('b'))
  disk.createNow('later').close()
  assert.equal(
    resultOf((done) => disk.rename('later', 'named', done)),
    undefined,
  )
  const image = disk.snapshot()
  const outcomes = (): string[] =>
    Array.from({ length: 30 }, (_, seed) => {
      disk.restore(image)
      assert.equal(textOf(disk.bytesOf('a')), sectors('b'))
      disk.crash(new SeededRandom(seed))
      const found = disk.paths().map((path) => `${path}=${disk.bytesOf(path)[0]}`)
      // Nothing done now reaches the image.
      if (disk.paths().includes('a')) disk.flipBit('a', 0, 7)
      return found.join()
    })
  const first = outcomes()
  assert.deepEqual(outcomes(), first)
  assert.ok(new Set(first).size > 3)
  assert.throws(() => write(file, 'x'), SimCrash, 'Files that were open before are dead')
})

test('wipe() loses everything', () => {
  const { disk, file } = diskWith('x')
  disk.wipe()
  assert.deepEqual(disk.paths(), [])
  assert.equal(disk.usedBytes, 0)
  assert.throws(() => file.sizeNow(), SimCrash)
})

test('queued operations end in an order drawn by the seed; those of one file keep theirs', () => {
  const orders = new Set<string>()
  for (let seed = 0; seed < 100; seed++) {
    let queued = 0
    const disk = new SimDisk({ completions: 'queued', onQueued: () => queued++ })
    const a = disk.createNow('a')
    const b = disk.createNow('b')
    const order: string[] = []
    a.write(bytesOf('1'), 0, 1, 0, () => order.push('a1'))
    a.write(bytesOf('2'), 0, 1, 0, () => order.push('a2'))
    b.sync(() => order.push('b'))
    disk.syncDirectory('', () => order.push('d'))
    assert.deepEqual([order.length, disk.pendingOperations, queued], [0, 4, 4])
    disk.drain(new SeededRandom(seed))
    assert.ok(order.indexOf('a1') < order.indexOf('a2'))
    assert.equal(textOf(disk.bytesOf('a')), '2')
    orders.add(order.join())
  }
  assert.equal(orders.size, 12, [...orders].join(' '))
})

/** A small program that uses all kinds of calls, as a log with a manifest would. Returns what it knows to be durable. */
function runProgram(disk: SimDisk, known: { log: string; manifest: string }): void {
  const settled = (start: (done: (error: SunwiseError | undefined) => void) => void): void => {
    start((error) => {
      if (error !== undefined) throw error
    })
  }
  disk.makeDirectoryNow('log')
  let log: DiskFile | undefined
  disk.create('log/1', 4 * sectorBytes, (error, file) => {
    if (error !== undefined) throw error
    log = file
  })
  for (let round = 1; round <= 3; round++) {
    const text = `${round}`.repeat(sectorBytes)
    write(log!, text, (round - 1) * sectorBytes)
    settled((done) => log!.sync(done))
    known.log += text
    const next = disk.createNow('manifest.new')
    write(next, `round ${round}`)
    settled((done) => next.sync(done))
    next.close()
    settled((done) => disk.rename('manifest.new', 'manifest', done))
    settled((done) => disk.syncDirectory('', done))
    known.manifest = `round ${round}`
  }
  log!.close()
  const seen = disk.openNow('log/1')
  assert.equal(seen.sizeNow(), 4 * sectorBytes)
  assert.equal(seen.readNow(new Uint8Array(10), 0, 10, 0), 10)
  seen.close()
  assert.deepEqual(disk.listNow('log'), ['1'])
  settled((done) => disk.remove('log/1', done))
}

/** What the program knew to be durable must be there. */
function checkProgram(disk: SimDisk, known: { log: string; manifest: string }, context: string): void {
  const paths = disk.paths()
  if (paths.includes('log/1')) {
    const log = textOf(disk.bytesOf('log/1'))
    assert.ok(log.startsWith(known.log), context)
  } else if (known.manifest !== 'round 3') assert.equal(known.log, '', context)
  if (known.manifest === '') return
  assert.ok(paths.includes('manifest'), context)
  const [, round] = textOf(disk.bytesOf('manifest')).match(/^round ([1-3])$/) ?? []
  assert.ok(Number(round) >= Number(known.manifest.slice(6)), `${context}: manifest ${round}, known ${known.manifest}`)
}

test('a crash at every call of a correct program loses nothing that it knew to be durable', () => {
  const dry = new SimDisk()
  runProgram(dry, { log: '', manifest: '' })
  for (const kind of diskCallKinds) assert.ok(dry.calls[kind] > 0, `the program makes a call of kind ${kind}`)
  assert.ok(dry.changesTotal < dry.callsTotal)
  for (const planned of ['crashAtCall', 'crashAtChange'] as const) {
    const calls = planned === 'crashAtCall' ? dry.callsTotal : dry.changesTotal
    for (let nth = 1; nth <= calls; nth++) {
      for (let seed = 0; seed < 8 * scale; seed++) {
        const disk = new SimDisk({ random: new SeededRandom(seed) })
        disk[planned](nth)
        const known = { log: '', manifest: '' }
        assert.throws(() => runProgram(disk, known), SimCrash)
        assert.ok(disk.hasCrashed)
        assert.throws(() => disk.listNow(''), SimCrash, 'A crashed disk serves nobody')
        if (seed % 2 === 0) disk.crash(new SeededRandom(seed))
        else disk.kill(new SeededRandom(seed))
        assert.equal(disk.hasCrashed, false)
        checkProgram(disk, known, `${planned}(${nth}), seed ${seed}`)
      }
    }
    const untouched = new SimDisk()
    untouched[planned](calls + 1)
    runProgram(untouched, { log: '', manifest: '' })
  }
})

test('a crash at every call finds a program that forgets a sync', () => {
  // The same program over a disk whose syncs lie: the sweep must notice.
  for (const kind of ['sync', 'syncDirectory'] as const) {
    let noticed = 0
    for (let seed = 0; seed < 40; seed++) {
      const disk = new SimDisk({ random: new SeededRandom(seed) })
      disk.fail({ kind, error: 'lie', times: Number.POSITIVE_INFINITY })
      const known = { log: '', manifest: '' }
      disk.crashAtCall(disk.callsTotal + 20)
      assert.throws(() => runProgram(disk, known), SimCrash)
      disk.crash(new SeededRandom(seed))
      try {
        checkProgram(disk, known, '')
      } catch {
        noticed++
      }
    }
    assert.ok(noticed > 10, `${kind}: ${noticed} of 40`)
  }
})

test('an error at every call of the program reaches it as a coded error', () => {
  const dry = new SimDisk()
  runProgram(dry, { log: '', manifest: '' })
  for (const kind of diskCallKinds) {
    for (let nth = 1; nth <= dry.calls[kind]; nth++) {
      for (const error of ['EIO', 'ENOSPC'] as const) {
        const disk = new SimDisk()
        disk.fail({ kind, nth, error })
        const known = { log: '', manifest: '' }
        assert.throws(() => runProgram(disk, known), SunwiseError)
        disk.crash(new SeededRandom(nth))
        checkProgram(disk, known, `${kind} ${nth} ${error}`)
      }
    }
  }
})

test('the same seed gives the same run', () => {
  const run = (seed: number): string => {
    const random = new SeededRandom(seed)
    const trace: string[] = []
    const disk = new SimDisk({
      random: random.fork('disk'),
      completions: 'queued',
      capacityBytes: 40 * sectorBytes,
      onCall: (kind, path) => trace.push(`${kind} ${path}`),
    })
    const files = new Map<string, DiskFile>()
    for (let round = 0; round < 150; round++) {
      const path = random.pick(['a', 'b', 'c'])
      const note = (error: SunwiseError | undefined): void => void trace.push(error?.code ?? 'done')
      const choice = random.below(12)
      try {
        if (choice < 2) files.set(path, disk.createNow(path))
        else if (choice < 6)
          files.get(path)?.write(bytesOf(path.repeat(2000)), 0, random.below(2000), random.below(3000), note)
        else if (choice < 7) files.get(path)?.sync(note)
        else if (choice < 8) disk.syncDirectory('', note)
        else if (choice < 9) disk.rename(path, random.pick(['a', 'b', 'c']), note)
        else if (choice < 10) disk.step(random)
        else if (choice < 11) disk.fail({ kind: random.pick(diskCallKinds), error: 'EIO' })
        else {
          disk.crash(random)
          files.clear()
        }
      } catch (error) {
        trace.push((error as SunwiseError).code)
      }
      for (const found of disk.paths()) trace.push(`${found} ${disk.bytesOf(found).join('')}`)
    }
    return trace.join('\n')
  }
  fc.assert(
    fc.property(fc.integer(), (seed) => assert.equal(run(seed), run(seed))),
    { numRuns: 10 },
  )
  assert.notEqual(run(1), run(2))
})

test('what was synced survives any history of writes, syncs, errors and power cuts', () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('write' as const), at: fc.nat(2500), length: fc.integer({ min: 1, max: 900 }) }),
    fc.record({ kind: fc.constantFrom('sync' as const, 'crash' as const, 'kill' as const) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), fc.integer(), (steps, seed) => {
      const random = new SeededRandom(seed)
      const disk = new SimDisk({ random: random.fork('disk') })
      disk.create('a', 0, () => {})
      let file = disk.openNow('a')
      // By byte: the values that it may have after a power cut. The last is what readers see.
      let allowed: Set<number>[] = []
      let letter = 0
      for (const action of steps) {
        if (action.kind === 'write') {
          letter = (letter % 250) + 1
          const bytes = new Uint8Array(action.length).fill(letter)
          file.writeNow(bytes, 0, bytes.length, action.at)
          while (allowed.length < action.at) allowed.push(new Set([0]))
          for (let at = action.at; at < action.at + action.length; at++) {
            allowed[at] ??= new Set([0])
            allowed[at]!.add(letter)
          }
        } else if (action.kind === 'sync') {
          file.sync((error) => assert.equal(error, undefined))
          allowed = [...disk.bytesOf('a')].map((byte) => new Set([byte]))
        } else {
          const before = disk.bytesOf('a')
          if (action.kind === 'crash') disk.crash(random)
          else disk.kill(random)
          file = disk.openNow('a')
          const after = disk.bytesOf('a')
          if (action.kind === 'kill') assert.deepEqual(after, before)
          else {
            for (let at = 0; at < after.length; at++) {
              if (!allowed[at]!.has(after[at]!))
                assert.fail(`byte ${at} is ${after[at]}, not of ${[...allowed[at]!].join()}`)
            }
            assert.equal(textOf(disk.durableBytesOf('a')), textOf(after))
            allowed = [...after].map((byte) => new Set([byte]))
          }
        }
      }
    }),
    { numRuns: 150 * scale },
  )
})
