import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type TestContext, test } from 'node:test'
import { open } from 'lmdb'
import { AssertionError } from '../../src/base/assert.ts'
import { SunwiseError } from '../../src/base/errors.ts'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { Limits } from '../../src/config.ts'
import type { CatalogEdit } from '../../src/env.ts'
import { HostCatalog } from '../../src/host/catalog.ts'
import { checkCatalogFile } from '../../src/host/catalog-file.ts'
import { catalogSuite } from '../conformance/catalog-suite.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)
const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text)
const put = (key: string, value: string): CatalogEdit => ({ op: 'put', key, value: bytesOf(value) })

function directoryFor(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'sunwise-catalog-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

function commit(catalog: HostCatalog, edits: readonly CatalogEdit[]): Promise<SunwiseError | undefined> {
  return new Promise((resolve) => catalog.commit(edits, resolve))
}

const isCorrupt = (pattern: RegExp) => (error: unknown) => {
  assert.ok(error instanceof SunwiseError, String(error))
  assert.equal(error.code, 'CATALOG_CORRUPT')
  assert.match(error.message, pattern)
  return true
}

catalogSuite('HostCatalog', async (t) => {
  const directory = directoryFor(t)
  const path = join(directory, 'catalog')
  const catalog = await HostCatalog.open(path)
  t.after(() => catalog.close())
  return {
    catalog,
    restart: async () => {
      // As another process would find it: a copy of the files as they are now.
      const copy = join(directory, 'copy')
      cpSync(path, copy, { recursive: true })
      const other = await HostCatalog.open(copy)
      t.after(() => other.close())
      return other
    },
  }
})

/** A catalog directory with some rows, closed; its file has branch pages, overflow pages and free pages. */
async function filledDirectory(t: TestContext): Promise<string> {
  const path = join(directoryFor(t), 'catalog')
  const catalog = await HostCatalog.open(path)
  for (let round = 0; round < 3; round++) {
    const rows = Array.from({ length: 100 }, (_, index) => put(`row/${index}`, `${round}`.repeat(40 + round)))
    assert.equal(await commit(catalog, [...rows, put(`large/${round}`, 'l'.repeat(5_000))]), undefined)
  }
  await catalog.close()
  return path
}

test('HostCatalog: the format on disk (golden)', async (t) => {
  const path = join(directoryFor(t), 'catalog')
  const catalog = await HostCatalog.open(path)
  await commit(catalog, [put('a', 'value')])
  await catalog.close()
  const database = open<Buffer, string>({
    path,
    encoding: 'binary',
    mapSize: 1 << 26,
    overlappingSync: false,
    noSubdir: false,
  })
  const rows = [...database.getRange({})].map(({ key, value }) => [key, value.toString('hex')])
  await database.close()
  assert.deepEqual(rows, [
    ['#format', '1e70fb9031'],
    ['a', '0637f86b76616c7565'],
  ])
})

test('HostCatalog.open() names both versions where the format is another one', async (t) => {
  const path = await filledDirectory(t)
  const database = open<Buffer, string>({
    path,
    encoding: 'binary',
    mapSize: 1 << 26,
    overlappingSync: false,
    noSubdir: false,
  })
  await database.put('#format', Buffer.from('172b7ac63737', 'hex'))
  await database.close()
  await assert.rejects(HostCatalog.open(path), isCorrupt(/format 77, and this program reads 1;/))
})

test('HostCatalog.open() refuses an LMDB file that is no catalog', async (t) => {
  const path = join(directoryFor(t), 'catalog')
  const database = open<Buffer, string>({
    path,
    encoding: 'binary',
    mapSize: 1 << 26,
    overlappingSync: false,
    noSubdir: false,
  })
  await database.put('a', Buffer.from('1'))
  await database.close()
  await assert.rejects(HostCatalog.open(path), isCorrupt(/no format row/))
})

test('HostCatalog: a row whose bytes changed is CATALOG_CORRUPT, never a wrong value', async (t) => {
  const path = await filledDirectory(t)
  const file = join(path, 'data.mdb')
  const bytes = readFileSync(file)
  for (let at = bytes.indexOf('2'.repeat(42)); at !== -1; at = bytes.indexOf('2'.repeat(42), at + 42))
    bytes[at + 7]! ^= 4
  writeFileSync(file, bytes)
  const catalog = await HostCatalog.open(path)
  t.after(() => catalog.close())
  assert.throws(() => catalog.get('row/5'), isCorrupt(/row "row\/5"/))
  assert.throws(() => catalog.scan('row/'), isCorrupt(/row "row\//))
  assert.equal(catalog.get('large/1')?.length, 5_000)
})

test('HostCatalog.open() says CATALOG_CORRUPT where the file is missing, short, or something else', async (t) => {
  const path = await filledDirectory(t)
  const file = join(path, 'data.mdb')
  const whole = readFileSync(file)
  const edit = (change: (bytes: Buffer) => void): void => {
    const bytes = Buffer.from(whole)
    change(bytes)
    writeFileSync(file, bytes)
  }
  const cases: [string, () => void, RegExp][] = [
    ['empty', () => truncateSync(file, 0), /ends at byte 0/],
    ['one page', () => truncateSync(file, 4096), /ends at byte 4096/],
    ['only the meta pages', () => truncateSync(file, 8192), /beyond its end/],
    ['zeros', () => writeFileSync(file, new Uint8Array(whole.length)), /no meta page at byte 0/],
    ['text', () => writeFileSync(file, 'x'.repeat(20_000)), /no meta page at byte 0/],
    ['zeros behind the meta pages', () => edit((bytes) => bytes.fill(0, 8192)), /not what it should be/],
    [
      'a newest state that looks old',
      () => edit((bytes) => bytes.writeUInt8(bytes[152]! - 2, 152)),
      /transaction numbers/,
    ],
    ['a state from the future', () => edit((bytes) => bytes.writeUInt8(bytes[152]! + 4, 152)), /transaction numbers/],
    ['a last page before others', () => edit((bytes) => bytes.writeUInt16LE(3, 144)), /last page is said to be 3/],
    ['a last page far away', () => edit((bytes) => bytes.writeUInt32LE(1, 148)), /last page is said to be/],
    ['trees of another kind', () => edit((bytes) => bytes.writeUInt16LE(4, 100)), /flags 4 instead of 0/],
    ['another count of rows', () => edit((bytes) => bytes.writeUInt16LE(7, 128)), /entries instead of 7/],
    ['a tree that is too deep', () => edit((bytes) => bytes.writeUInt16LE(99, 102)), /99 levels deep/],
    ['another version of LMDB', () => edit((bytes) => bytes.writeUInt8(1, 28)), /LMDB format is 1/],
    ['another page size', () => edit((bytes) => bytes.writeUInt32LE(4097, 48)), /page size is 4097/],
    [
      'rows out of order',
      () =>
        edit((bytes) => {
          const page = bytes.indexOf('2'.repeat(42)) & ~4095
          bytes.copy(bytes, page + 24, page + 26, page + 28)
        }),
      /keys out of order/,
    ],
  ]
  assert.ok(whole[152]! > whole[4096 + 152]!, 'The first meta page is the newest here')
  for (const [what, damage, pattern] of cases) {
    writeFileSync(file, whole)
    damage()
    await assert.rejects(HostCatalog.open(path), isCorrupt(pattern), what)
  }
  rmSync(file)
  await assert.rejects(HostCatalog.open(path), { code: 'DISK_FAILED' })
  mkdirSync(file)
  await assert.rejects(HostCatalog.open(path), { code: 'DISK_FAILED' })
})

test('checkCatalogFile() and the checksums let no damage through: no signal, no wrong value', async (t) => {
  const path = await filledDirectory(t)
  const file = join(path, 'data.mdb')
  const whole = readFileSync(file)
  const used = whole.subarray(0, whole.lastIndexOf('2222') + 4096)
  const random = new SeededRandom('catalog damage')
  let refused = 0
  for (let round = 0; round < 300 * scale; round++) {
    const bytes = Buffer.from(whole)
    // A bit, a run of noise, a page of zeros, a page in another's place.
    const at = random.below(used.length)
    const page = at & ~4095
    const kind = random.below(4)
    if (kind === 0) bytes[at]! ^= 1 << random.below(8)
    else if (kind === 1) random.fill(bytes.subarray(at, at + random.between(1, 600)))
    else if (kind === 2) bytes.fill(0, page, page + 4096)
    else bytes.copy(bytes, random.below(used.length >> 12) << 12, page, page + 4096)
    writeFileSync(file, bytes)
    try {
      checkCatalogFile(path)
    } catch (error) {
      // Only ever the coded error: no number in the file leads outside of it.
      isCorrupt(/data\.mdb/)(error)
      refused++
    }
  }
  assert.ok(refused > 20 * scale, `${refused} refused`)
})

test('checkCatalogFile(): what it lets pass, LMDB can read', { timeout: 300_000 }, async (t) => {
  const path = await filledDirectory(t)
  const parent = join(path, '..')
  // In a process of its own, since LMDB ends it with a signal where the check misses something.
  const script = `
    import { readFileSync, writeFileSync, mkdirSync, rmSync } from 'node:fs'
    const { HostCatalog } = await import(${JSON.stringify(join(import.meta.dirname, '../../src/host/catalog.ts'))})
    const { SeededRandom } = await import(${JSON.stringify(join(import.meta.dirname, '../../src/base/seeded-random.ts'))})
    const whole = readFileSync(${JSON.stringify(join(path, 'data.mdb'))})
    const used = whole.lastIndexOf('2222') + 4096
    const random = new SeededRandom('catalog damage read')
    const seen = { refused: 0, corrupt: 0, fine: 0, wrong: 0 }
    for (let round = 0; round < ${150 * scale}; round++) {
      const path = ${JSON.stringify(parent)} + '/damaged' + round
      const bytes = Buffer.from(whole)
      const at = random.below(used >> 12) * 4096 + random.below(random.pick([64, 4096]))
      if (random.chance(1, 2)) bytes[at] ^= 1 << random.below(8)
      else random.fill(bytes.subarray(at, at + random.between(1, 64)))
      mkdirSync(path)
      writeFileSync(path + '/data.mdb', bytes)
      let catalog
      try {
        catalog = await HostCatalog.open(path)
        const rows = catalog.scan('')
        if (rows.length !== 103 || rows.some(([key, value]) => key.startsWith('row/') && Buffer.from(value).toString() !== '2'.repeat(42))) seen.wrong++
        else seen.fine++
      } catch (error) {
        if (error.code !== 'CATALOG_CORRUPT') throw error
        if (catalog === undefined) seen.refused++
        else seen.corrupt++
      }
      await catalog?.close()
      rmSync(path, { recursive: true })
    }
    console.log(JSON.stringify(seen))`
  const { stdout, stderr, signal } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
  })
  assert.equal(signal, null, stderr)
  const seen = JSON.parse(stdout.trim().split('\n').at(-1)!) as Record<string, number>
  assert.equal(seen['wrong'], 0, stdout)
  assert.ok(seen['fine']! > 0 && seen['refused']! > 0, stdout)
})

test('HostCatalog.open() starts over where an earlier start was cut short, and leaves no traces', async (t) => {
  const directory = directoryFor(t)
  const path = join(directory, 'catalog')
  mkdirSync(`${path}.new`)
  writeFileSync(join(`${path}.new`, 'data.mdb'), 'half of a catalog')
  const catalog = await HostCatalog.open(path)
  assert.deepEqual(catalog.scan(''), [])
  await catalog.close()
  assert.deepEqual(readdirSync(directory), ['catalog'])
  assert.equal(statSync(path).mode & 0o077, 0)
})

test('HostCatalog.open() says DISK_FAILED where it cannot make the directory', async (t) => {
  await assert.rejects(HostCatalog.open(join(directoryFor(t), 'missing', 'catalog')), { code: 'DISK_FAILED' })
})

test('HostCatalog.commit() after close() is CLOSED; close() waits for commits under way; a closed catalog is not read', async (t) => {
  const path = join(directoryFor(t), 'catalog')
  const catalog = await HostCatalog.open(path)
  const under = commit(catalog, [put('a', '1')])
  const closing = catalog.close()
  assert.equal((await commit(catalog, [put('b', '1')]))?.code, 'CLOSED')
  assert.equal(await under, undefined)
  await closing
  await catalog.close()
  assert.throws(() => catalog.get('a'), AssertionError)
  assert.throws(() => catalog.scan(''), AssertionError)
  const again = await HostCatalog.open(path)
  assert.deepEqual(
    again.scan('').map(([key]) => key),
    ['a'],
  )
  await again.close()
})

test('HostCatalog refuses commits beyond its limit, with nothing done', async (t) => {
  const catalog = await HostCatalog.open(join(directoryFor(t), 'catalog'))
  const results = await Promise.all(
    Array.from({ length: Limits.catalogCommitsPendingMax + 10 }, (_, index) =>
      commit(catalog, [put(`row${index}`, 'x')]),
    ),
  )
  const refused = results.filter((error) => error !== undefined)
  assert.ok(refused.length >= 9)
  for (const error of refused) assert.deepEqual([error.code, error.outcome], ['OVERLOADED', 'none'])
  assert.equal(catalog.scan('').length, results.length - refused.length)
  await catalog.close()
})

test('HostCatalog writes room for a commit beforehand, so that LMDB never meets a full disk', async (t) => {
  const path = join(directoryFor(t), 'catalog')
  const catalog = await HostCatalog.open(path)
  const file = join(path, 'data.mdb')
  for (let round = 0; round < 30; round++) {
    const before = statSync(file).size
    await commit(
      catalog,
      Array.from({ length: 20 }, (_, index) => put(`row/${round}/${index}`, 'x'.repeat(20_000))),
    )
    const { pageSize, lastPageNumber } = open<Buffer, string>({ path, noSubdir: false }).getStats() as {
      pageSize: number
      lastPageNumber: number
    }
    const after = statSync(file).size
    assert.ok(after >= before && after > (lastPageNumber + 1) * pageSize)
    assert.equal(after % pageSize, 0)
  }
  await catalog.close()
})

test('HostCatalog: a process killed among its commits leaves a file that is whole, with every acknowledged commit', {
  timeout: 300_000,
}, async (t) => {
  const path = join(directoryFor(t), 'catalog')
  const random = new SeededRandom('catalog kills')
  const script = `
    const { HostCatalog } = await import(${JSON.stringify(join(import.meta.dirname, '../../src/host/catalog.ts'))})
    const catalog = await HostCatalog.open(${JSON.stringify(path)})
    const first = catalog.scan('r').length
    for (let round = first; ; round++) {
      const value = new Uint8Array((round % 7) * 900).fill(round)
      const edits = [{ op: 'put', key: 'last', value: Buffer.from(String(round)) }, { op: 'put', key: 'r' + round, value }]
      await new Promise((resolve) => catalog.commit(edits, resolve))
      console.log(round)
    }`
  let acknowledged = -1
  for (let kill = 0; kill < 5 * scale; kill++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const rounds = acknowledged + random.between(1, 60)
    for await (const line of createInterface({ input: child.stdout })) {
      acknowledged = Number(line)
      if (acknowledged >= rounds) child.kill('SIGKILL')
    }
    checkCatalogFile(path)
  }
  const catalog = await HostCatalog.open(path)
  t.after(() => catalog.close())
  const rows = catalog.scan('r')
  assert.ok(
    rows.length === acknowledged + 1 || rows.length === acknowledged + 2,
    `${rows.length} rows, ${acknowledged}`,
  )
  assert.equal(Buffer.from(catalog.get('last')!).toString(), String(rows.length - 1))
})

/** Runs a script in a process of its own behind `command`, which may not be permitted here: then the test is skipped. */
function runBehind(t: TestContext, command: readonly string[], script: string): string[] | undefined {
  const probe = spawnSync(command[0]!, [...command.slice(1), process.execPath, '-e', 'console.log(1)'], {
    encoding: 'utf8',
  })
  if (probe.stdout?.trim() !== '1') {
    t.skip(`needs ${command[0]}`)
    return undefined
  }
  const imports = `
    import { rmSync, statfsSync, writeFileSync } from 'node:fs'
    const { HostCatalog } = await import(${JSON.stringify(join(import.meta.dirname, '../../src/host/catalog.ts'))})
    process.on('unhandledRejection', (error) => console.log('unhandled', error.message))
    const commit = (catalog, round) => new Promise((resolve) => {
      const value = new Uint8Array(400_000).fill(round)
      const edits = [{ op: 'put', key: 'k', value }, { op: 'put', key: 'r' + round, value }]
      catalog.commit(edits, (error) => resolve(error?.code ?? 'done'))
    })
    const rowsOf = (catalog) => catalog.scan('').map(([key, value]) => key + ':' + value[0]).join(' ')`
  const args = [...command.slice(1), process.execPath, '--input-type=module', '-e', imports + script]
  const { stdout, stderr, signal, status } = spawnSync(command[0]!, args, { encoding: 'utf8', timeout: 240_000 })
  assert.deepEqual([signal, status], [null, 0], `${stdout}\n${stderr}`)
  return stdout.trim().split('\n')
}

test('HostCatalog: a full disk is DISK_FULL with nothing done, and commits go on when there is room again', {
  timeout: 300_000,
}, (t) => {
  const directory = directoryFor(t)
  const mount = ['unshare', '-rm', 'sh', '-c', `mount -t tmpfs -o size=8m none ${directory} && exec "$0" "$@"`]
  const lines = runBehind(
    t,
    mount,
    `
    const catalog = await HostCatalog.open(${JSON.stringify(join(directory, 'catalog'))})
    console.log(await commit(catalog, 0))
    const { bavail, bsize } = statfsSync(${JSON.stringify(directory)})
    writeFileSync(${JSON.stringify(join(directory, 'filler'))}, new Uint8Array(bavail * bsize - 100_000))
    console.log(await commit(catalog, 1), await commit(catalog, 2), rowsOf(catalog))
    rmSync(${JSON.stringify(join(directory, 'filler'))})
    console.log(await commit(catalog, 3), rowsOf(catalog))
    await catalog.close()
    const again = await HostCatalog.open(${JSON.stringify(join(directory, 'catalog'))})
    console.log(rowsOf(again))
    await again.close()`,
  )
  if (lines === undefined) return
  assert.deepEqual(lines, ['done', 'DISK_FULL DISK_FULL k:0 r0:0', 'done k:3 r0:0 r3:3', 'k:3 r0:0 r3:3'])
})

test('HostCatalog: after an error of LMDB every commit is DISK_FAILED, and the next process finds whole commits', {
  timeout: 300_000,
}, async (t) => {
  const path = join(directoryFor(t), 'catalog')
  await (await HostCatalog.open(path)).close()
  const fault = ['strace', '-qq', '-f', '-o', '/dev/null', '-e', 'inject=fdatasync:error=EIO:when=2+']
  const lines = runBehind(
    t,
    [...fault, '-e', 'trace=fdatasync', '-P', join(path, 'data.mdb')],
    `
    const catalog = await HostCatalog.open(${JSON.stringify(path)})
    for (let round = 0; round < 12; round++) console.log(await commit(catalog, round))
    await catalog.close()`,
  )
  if (lines === undefined) return
  const acknowledged = lines.indexOf('DISK_FAILED')
  assert.ok(acknowledged > 0, lines.join())
  assert.deepEqual(
    lines,
    lines.map((_, index) => (index < acknowledged ? 'done' : 'DISK_FAILED')),
  )
  const catalog = await HostCatalog.open(path)
  const rows = catalog.scan('r')
  assert.ok(rows.length === acknowledged || rows.length === acknowledged + 1)
  assert.equal(catalog.get('k')![0], rows.length - 1)
  await catalog.close()
})
