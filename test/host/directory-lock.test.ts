import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type TestContext, test } from 'node:test'
import { SunwiseError } from '../../src/base/errors.ts'
import { acquireDirectoryLock, type DirectoryLock, holderOf, shortPathOf } from '../../src/host/directory-lock.ts'

const scale = Number(process.env['SUNWISE_TEST_SCALE'] ?? 1)

function directoryFor(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'sunwise-lock-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** A competing process; see directory-lock-peer.ts. */
class Peer {
  readonly child: ChildProcess
  readonly #lines: AsyncIterator<string>

  constructor(t: TestContext, directory: string) {
    this.child = spawn(process.execPath, [join(import.meta.dirname, 'directory-lock-peer.ts'), directory], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    t.after(() => this.child.kill('SIGKILL'))
    this.#lines = createInterface({ input: this.child.stdout! })[Symbol.asyncIterator]()
  }

  get pid(): number {
    return this.child.pid!
  }

  async ask(line: string): Promise<string> {
    this.child.stdin!.write(`${line}\n`)
    return String((await this.#lines.next()).value)
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await once(this.child, 'exit')
  }
}

const isLocked = (pattern: RegExp) => (error: unknown) => {
  assert.ok(error instanceof SunwiseError)
  assert.equal(error.code, 'DIRECTORY_LOCKED')
  assert.match(error.message, pattern)
  return true
}

test('acquireDirectoryLock() refuses a second lock in one process, naming it, until the first is released', async (t) => {
  const directory = directoryFor(t)
  const lock = await acquireDirectoryLock(directory)
  await assert.rejects(acquireDirectoryLock(directory), isLocked(new RegExp(`this process \\(${process.pid}\\)`)))
  assert.equal(await holderOf(directory), String(process.pid))
  await lock.release()
  await lock.release()
  assert.equal(await holderOf(directory), undefined)
  const again = await acquireDirectoryLock(directory)
  // A released lock has no power over its successor.
  await lock.release()
  assert.equal(await holderOf(directory), String(process.pid))
  await again.release()
})

test('acquireDirectoryLock() names the process that holds the directory', async (t) => {
  const directory = directoryFor(t)
  const peer = new Peer(t, directory)
  assert.equal(await peer.ask('take'), 'held')
  await assert.rejects(acquireDirectoryLock(directory), isLocked(new RegExp(`process ${peer.pid};`)))
  assert.equal(await holderOf(directory), String(peer.pid))
  assert.equal(await peer.ask('release'), 'released')
  await (await acquireDirectoryLock(directory)).release()
})

test('acquireDirectoryLock() takes over from a process that was killed', async (t) => {
  const directory = directoryFor(t)
  for (let round = 0; round < 2; round++) {
    const peer = new Peer(t, directory)
    assert.equal(await peer.ask('take'), 'held')
    await peer.kill()
    assert.equal(await holderOf(directory), undefined)
    const lock = await acquireDirectoryLock(directory)
    await lock.release()
  }
})

test('acquireDirectoryLock() waits for no answer of a stopped process: it holds the directory still', async (t) => {
  const directory = directoryFor(t)
  const peer = new Peer(t, directory)
  assert.equal(await peer.ask('take'), 'held')
  peer.child.kill('SIGSTOP')
  await assert.rejects(acquireDirectoryLock(directory), isLocked(/another process/))
  peer.child.kill('SIGCONT')
})

test('acquireDirectoryLock(): of many starters in one process exactly one wins, however often holders change', async (t) => {
  const directory = directoryFor(t)
  for (let round = 0; round < 20 * scale; round++) {
    const tries = await Promise.allSettled(Array.from({ length: 8 }, () => acquireDirectoryLock(directory)))
    const held: DirectoryLock[] = []
    for (const result of tries) {
      if (result.status === 'fulfilled') held.push(result.value)
      else assert.equal((result.reason as SunwiseError).code, 'DIRECTORY_LOCKED')
    }
    assert.equal(held.length, 1, `round ${round}`)
    await held[0]!.release()
  }
  assert.ok(readdirSync(directory).length <= 2, readdirSync(directory).join())
})

test('acquireDirectoryLock(): of many processes that find a dead holder exactly one wins', {
  timeout: 60_000,
}, async (t) => {
  const directory = directoryFor(t)
  const peers = Array.from({ length: 4 }, () => new Peer(t, directory))
  await Promise.all(peers.map((peer) => peer.ask('ready')))
  let holder: Peer | undefined
  for (let round = 0; round < 6 * scale; round++) {
    const answers = await Promise.all(peers.map((peer) => (peer === holder ? 'holder' : peer.ask('take'))))
    const winners = peers.filter((_, index) => answers[index] === 'held')
    assert.equal(winners.length, 1, `round ${round}: ${answers.join(', ')}`)
    for (const answer of answers) assert.match(answer, /^(held|DIRECTORY_LOCKED .*)$/)
    // Every other time the winner dies with the lock; a fresh process takes its place among the starters.
    const winner = winners[0]!
    if (round % 2 === 0) {
      await winner.kill()
      const fresh = new Peer(t, directory)
      await fresh.ask('ready')
      peers[peers.indexOf(winner)] = fresh
    } else await winner.ask('release')
  }
})

test('acquireDirectoryLock() withdraws when holders changed between its look at the dead one and its own claim', async (t) => {
  let withdrawn = 0
  for (let turns = 0; turns < 12; turns++) {
    const directory = directoryFor(t)
    // A plain file refuses connections like a dead socket does.
    writeFileSync(join(directory, 'lock.5'), '')
    const other = createServer((socket) => socket.end('4711')).listen(join(directory, 'other'))
    t.after(() => other.close())
    await once(other, 'listening')
    const taking = acquireDirectoryLock(directory).then(
      (lock) => lock,
      (error: unknown) => error,
    )
    for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => process.nextTick(resolve))
    // At once, as if the process had been stopped meanwhile: 6 comes and goes, 7 holds, and the cleaning has taken the rest.
    const isInTime = !existsSync(join(directory, 'lock.6'))
    if (isInTime) {
      linkSync(join(directory, 'other'), join(directory, 'lock.7'))
      rmSync(join(directory, 'lock.5'))
    }
    const result = await taking
    if (isInTime) {
      assert.ok(isLocked(/process 4711/)(result), `after ${turns} turns`)
      assert.deepEqual(readdirSync(directory).sort(), ['lock.7', 'other'])
      withdrawn++
    } else await (result as DirectoryLock).release()
  }
  assert.ok(withdrawn >= 1)
})

test('acquireDirectoryLock() leaves a bounded number of names, and clears those of starters that died halfway', async (t) => {
  const directory = directoryFor(t)
  writeFileSync(join(directory, 'lock.new.1.abandoned'), '')
  writeFileSync(join(directory, 'lockfile'), '')
  for (let round = 0; round < 5; round++) await (await acquireDirectoryLock(directory)).release()
  assert.deepEqual(readdirSync(directory).sort(), ['lock.4', 'lock.5', 'lockfile'])
})

test('acquireDirectoryLock() works below paths that no socket address holds', async (t) => {
  const directory = join(directoryFor(t), 'x'.repeat(150), 'é'.repeat(50))
  mkdirSync(directory, { recursive: true })
  const lock = await acquireDirectoryLock(directory)
  assert.deepEqual(readdirSync(directory), ['lock.1'])
  await assert.rejects(acquireDirectoryLock(directory), isLocked(/this process/))
  assert.equal(await holderOf(directory), String(process.pid))
  await lock.release()
  assert.equal(await holderOf(directory), undefined)
})

test('shortPathOf() uses a link in the temporary directory where descriptors have no paths', async (t) => {
  const directory = join(directoryFor(t), 'y'.repeat(150))
  mkdirSync(directory)
  const path = shortPathOf(directory, '/there/is/no/such/directory')
  assert.equal(readlinkSync(path.directory), directory)
  const server = createServer().listen(join(path.directory, 'socket'))
  await once(server, 'listening')
  assert.deepEqual(readdirSync(directory), ['socket'])
  server.close()
  path.dispose()
  assert.throws(() => readlinkSync(path.directory), /ENOENT/)
  const short = shortPathOf('/tmp')
  assert.equal(short.directory, '/tmp')
  short.dispose()
  if (process.platform === 'linux') {
    const viaDescriptor = shortPathOf(directory)
    assert.equal(realpathSync(viaDescriptor.directory), realpathSync(directory))
    viaDescriptor.dispose()
  }
})

test('acquireDirectoryLock() says DIRECTORY_UNUSABLE where no socket can be made', async (t) => {
  const directory = directoryFor(t)
  const file = join(directory, 'file')
  writeFileSync(file, '')
  for (const wrong of [join(directory, 'missing'), file, join(directory, 'm'.repeat(200))]) {
    await assert.rejects(acquireDirectoryLock(wrong), (error: unknown) => {
      assert.ok(error instanceof SunwiseError)
      assert.equal(error.code, 'DIRECTORY_UNUSABLE')
      assert.ok(error.message.includes(wrong))
      assert.ok(error.cause !== undefined)
      return true
    })
  }
  assert.equal(await holderOf(join(directory, 'missing')), undefined)
})

test('acquireDirectoryLock() takes a listener that says nonsense, or nothing, for an unknown holder', async (t) => {
  for (const answer of ['<script>', '']) {
    const directory = directoryFor(t)
    const server = createServer((socket) => socket.end(answer)).listen(join(directory, 'lock.1'))
    t.after(() => server.close())
    await once(server, 'listening')
    await assert.rejects(acquireDirectoryLock(directory), isLocked(/another process/))
    assert.equal(await holderOf(directory), 'unknown')
  }
})

test('a held lock keeps no process alive', async (t) => {
  const directory = directoryFor(t)
  const peer = new Peer(t, directory)
  assert.equal(await peer.ask('take'), 'held')
  peer.child.stdin!.end()
  const [code] = await once(peer.child, 'exit')
  assert.equal(code, 0)
})
