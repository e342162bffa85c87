/** Damaged tables of a server: it starts and serves the rest; a salvage gives up what is damaged, and nothing more. */
import assert from 'node:assert/strict'
import { cpSync, lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { ConfigDefaults } from '../../src/config.ts'
import { createBackup } from '../../src/host/backup-source.ts'
import { HostCatalog } from '../../src/host/catalog.ts'
import { checkDirectory } from '../../src/host/directory-check.ts'
import { NodeHost } from '../../src/host/node-host.ts'
import { NodeRecord } from '../../src/host/node-record.ts'
import { open } from '../../src/index.ts'

const MiB = 1024 * 1024
const root = mkdtempSync(join(tmpdir(), 'sunwise-salvage-'))
const whole = join(root, 'whole')
const keys = 16_000
const options = { shards: 1, memoryBytes: 72 * MiB, durability: 'os' } as const
const contentOf = (key: number): string => `${key}/${'x'.repeat(4000 + (key % 5) * 400)}`

after(() => rmSync(root, { recursive: true, force: true }))

before(async () => {
  await using store = await open({ ...options, dir: whole })
  for (let first = 0; first < keys; first += 250) {
    const portion = Array.from({ length: 250 }, (_, index) => first + index)
    await Promise.all(portion.map((key) => store.put(`key ${key}`, contentOf(key))))
  }
})

let copies = 0

function copy(): { readonly directory: string; readonly tables: string[] } {
  const directory = join(root, `copy-${copies++}`)
  cpSync(whole, directory, {
    recursive: true,
    filter: (path) => !lstatSync(path).isSocket() && !path.endsWith('lock.mdb'),
  })
  return { directory, tables: readdirSync(join(directory, 'tables')).sort() }
}

function flip(path: string, offset: number): void {
  const bytes = readFileSync(path)
  bytes[offset] = bytes[offset]! ^ 4
  writeFileSync(path, bytes)
}

/** What the keys of a store answer: how many with their value, with nothing, and with damage. */
async function readAll(directory: string): Promise<{ right: number; absent: number; damaged: number; log: string[] }> {
  const log: string[] = []
  await using store = await open({ ...options, dir: directory, log: (line) => log.push(line) })
  const counts = { right: 0, absent: 0, damaged: 0, log }
  for (let key = 0; key < keys; key++) {
    try {
      const entry = await store.get(`key ${key}`)
      if (entry === undefined) counts.absent++
      else {
        assert.equal(new TextDecoder().decode(entry.value), contentOf(key))
        counts.right++
      }
    } catch (error) {
      assert.equal((error as { code: string }).code, 'TABLE_CORRUPT')
      counts.damaged++
    }
  }
  return counts
}

async function salvage(directory: string): Promise<string[]> {
  const log: string[] = []
  const node = await NodeHost.start(
    {
      config: { ...ConfigDefaults, ...options, directory },
      http: undefined,
      frontEnd: false,
      salvage: true,
      log: (line) => log.push(line),
      onFatal: (error) => assert.fail(error),
    },
    64,
  )
  await node.close()
  return log
}

async function actorOf(directory: string): Promise<string> {
  const catalog = await HostCatalog.open(join(directory, 'catalog'))
  try {
    const { low, high } = new NodeRecord(catalog).actor!
    return `${low}/${high}`
  } finally {
    await catalog.close()
  }
}

test('a start with a damaged block serves all other keys; a salvage gives up its partition, under a new actor', async () => {
  const { directory, tables } = copy()
  flip(join(directory, 'tables', tables[0]!), 100_000)
  const first = await readAll(directory)
  assert.ok(first.damaged > 0 && first.damaged < 100, `${first.damaged} keys`)
  assert.equal(first.right + first.damaged, keys)
  const actor = await actorOf(directory)
  const log = await salvage(directory)
  assert.equal(log.filter((line) => line.includes(tables[0]!)).length, 1, log.join('\n'))
  assert.notEqual(await actorOf(directory), actor)
  const second = await readAll(directory)
  assert.equal(second.damaged, 0)
  assert.ok(second.absent >= first.damaged && second.absent < 200)
  assert.equal(second.right, keys - second.absent)
  const { findings } = await checkDirectory(directory, () => {})
  // The file is still there, for the other partitions; its damage is nobody's any more.
  assert.deepEqual(findings, [])
  // Nor does it keep anybody from a backup.
  const backups = {
    dataDirectory: directory,
    directory: join(root, 'backups'),
    keep: 1,
    onProgress: () => {},
    checks: true,
  }
  assert.equal((await createBackup(backups)).number, 1)
})

test('a start without a table file says so and serves the rest; a salvage goes on without it', async () => {
  const { directory, tables } = copy()
  unlinkSync(join(directory, 'tables', tables[0]!))
  const first = await readAll(directory)
  assert.ok(first.damaged > 0)
  assert.equal(first.absent, 0, 'Nothing is said to be absent that may have been there')
  assert.ok(first.right > 0)
  assert.ok(first.log.some((line) => line.includes(tables[0]!)))
  const log = await salvage(directory)
  assert.ok(log.some((line) => line.includes(tables[0]!) && line.includes('records')))
  const second = await readAll(directory)
  // What lay below the table that is gone shows again.
  assert.equal(second.damaged, 0)
  assert.ok(second.right >= first.right && second.absent > 0)
  assert.deepEqual(await checkDirectory(directory, () => {}).then(({ findings }) => findings), [])
})

test('a table whose ends are damaged is put aside by a salvage', async () => {
  const { directory, tables } = copy()
  const path = join(directory, 'tables', tables[0]!)
  flip(path, 3)
  assert.ok((await readAll(directory)).damaged > 0)
  const log = await salvage(directory)
  assert.ok(log.some((line) => line.includes(`${tables[0]}.damaged`)))
  assert.ok(readdirSync(join(directory, 'tables')).includes(`${tables[0]}.damaged`))
  assert.equal((await readAll(directory)).damaged, 0)
})
