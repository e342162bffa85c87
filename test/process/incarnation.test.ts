/**
 * When a node takes a new actor: exactly when some of what its old one named may be lost. A counter that goes backwards under an
 * old name would lose writes silently; a new name for every start would make contexts grow.
 */
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { pathOf, ServerProcess } from './server-process.ts'

const root = mkdtempSync(join(tmpdir(), 'sunwise-incarnation-'))
let directories = 0
const newDirectory = (): string => join(root, `data-${directories++}`)

after(() => rmSync(root, { recursive: true, force: true }))

const flagsOf = (durability: string): string[] => ['--shards', '1', '--durability', durability]

/** Writes once, and gives the actor that the answer names as the last one. */
async function actorOf(server: ServerProcess, query = ''): Promise<string> {
  const key = `new key ${Math.random()}`
  const reply = await server.ask('PUT', pathOf(key) + query, 'value')
  assert.equal(reply.status, 204)
  return Buffer.from(String(reply.headers['sunwise-context']), 'base64url').subarray(5, 13).toString('hex')
}

type Life = { readonly durability: string; readonly query?: string; readonly ending: 'stop' | 'kill' }

for (const { durability, query, ending, isKept } of [
  { durability: 'sync', ending: 'stop', isKept: true },
  { durability: 'sync', ending: 'kill', isKept: true },
  { durability: 'os', ending: 'stop', isKept: true },
  { durability: 'os', ending: 'kill', isKept: false },
  { durability: 'interval', ending: 'kill', isKept: false },
  { durability: 'sync', query: '?durability=os', ending: 'stop', isKept: true },
  { durability: 'sync', query: '?durability=os', ending: 'kill', isKept: false },
] satisfies (Life & { readonly isKept: boolean })[]) {
  const life = `${durability}${query === undefined ? '' : ` with ${query}`}, then ${ending}`
  test(`Node: after a life of ${life}, its actor is ${isKept ? 'kept' : 'new'}`, { timeout: 120_000 }, async () => {
    const directory = newDirectory()
    let before: string
    {
      await using server = await ServerProcess.start(directory, { flags: flagsOf(durability) })
      before = await actorOf(server, query)
      if (ending === 'kill') await server.kill()
      else assert.equal((await server.stop()).code, 0)
    }
    await using server = await ServerProcess.start(directory, { flags: flagsOf('sync') })
    const now = await actorOf(server)
    if (isKept) assert.equal(now, before)
    else assert.notEqual(now, before)
  })
}

test('Node: a copy of its directory is another actor, and keys of both stay apart', { timeout: 120_000 }, async () => {
  const directory = newDirectory()
  const copy = newDirectory()
  let before: string
  {
    await using server = await ServerProcess.start(directory, { flags: flagsOf('sync') })
    before = await actorOf(server)
    assert.equal((await server.ask('PUT', pathOf('key'), 'of the first')).status, 204)
    await server.stop()
  }
  cpSync(directory, copy, { recursive: true })
  await using original = await ServerProcess.start(directory, { flags: flagsOf('sync') })
  await using clone = await ServerProcess.start(copy, { flags: flagsOf('sync') })
  assert.equal(await actorOf(original), before)
  assert.notEqual(await actorOf(clone), before)
  assert.equal((await clone.ask('GET', pathOf('key'))).body.toString(), 'of the first')
  assert.equal((await clone.ask('PUT', pathOf('key'), 'of the second')).status, 204)
  assert.equal((await clone.ask('GET', pathOf('key'))).body.toString(), 'of the second')
})

test('Node: a backup that is put back into its own directory is another actor', { timeout: 120_000 }, async () => {
  const directory = newDirectory()
  const backup = newDirectory()
  const live = async (): Promise<string> => {
    await using server = await ServerProcess.start(directory, { flags: flagsOf('sync') })
    const actor = await actorOf(server)
    await server.stop()
    return actor
  }
  const before = await live()
  cpSync(directory, backup, { recursive: true })
  // What is written now is forgotten by the restore, but clients still hold its contexts.
  assert.equal(await live(), before)
  for (const name of readdirSync(directory)) rmSync(join(directory, name), { recursive: true })
  cpSync(backup, directory, { recursive: true })
  assert.notEqual(await live(), before)
})
