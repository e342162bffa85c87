/** `dev --nodes`: a cluster of processes that starts, stops and ends as one, and goes on with its data, on the same ports or on others. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { decodePeerPorts } from '../../src/cli/dev-ports.ts'
import { askAt, pathOf, type Reply } from './server-process.ts'

const program = join(import.meta.dirname, '..', '..', 'src', 'main.ts')
const directory = mkdtempSync(join(tmpdir(), 'sunwise-dev-'))
after(() => rmSync(directory, { recursive: true, force: true }))

type DevNode = { readonly name: string; readonly http: string; readonly peer: string; readonly pid: number }

async function until(what: string, isDone: () => boolean | Promise<boolean>, explain: () => string): Promise<void> {
  const by = performance.now() + 60_000
  while (!(await isDone())) {
    assert.ok(performance.now() < by, `${what} within 60 s: ${explain()}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

class Dev implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly ended: Promise<number | NodeJS.Signals | null>
  nodes: readonly DevNode[] = []
  said = ''
  printed = ''

  private constructor(count: number) {
    const words = ['--data-dir', directory, '--http', '127.0.0.1:0', '-o', 'json', '--memory', '64mb', '--shards', '1']
    this.#child = spawn(process.execPath, [program, 'dev', '--nodes', String(count), ...words], {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    })
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.printed += text
    })
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.said += text
    })
    this.ended = new Promise((resolve) => this.#child.on('close', (code, signal) => resolve(signal ?? code)))
  }

  static async start(count: number): Promise<Dev> {
    const dev = new Dev(count)
    try {
      await dev.#untilReady(count)
      return dev
    } catch (error) {
      await dev[Symbol.asyncDispose]()
      throw error
    }
  }

  async #untilReady(count: number): Promise<void> {
    let hasEnded = false
    this.ended.then(() => {
      hasEnded = true
    })
    await until(
      'dev is ready',
      () => this.printed.includes('\n') || hasEnded,
      () => this.said,
    )
    assert.equal(hasEnded, false, this.said)
    this.nodes = (JSON.parse(this.printed) as { nodes: DevNode[] }).nodes
    assert.equal(this.nodes.length, count)
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  /** As a terminal does it: to all processes of the group. */
  interrupt(): void {
    process.kill(-this.#child.pid!, 'SIGINT')
  }

  /** Nobody but the nodes themselves can end them after a SIGKILL of `dev`. */
  async allEnded(): Promise<void> {
    await until(
      'all nodes end',
      () => !this.nodes.some(({ pid }) => isRunning(pid)),
      () => this.said,
    )
  }

  /** Asks again where a node says that it may be asked again. */
  async ask(index: number, method: string, key: string, value?: string): Promise<Reply> {
    const port = Number(new URL(this.nodes[index]!.http).port)
    let reply: Reply | undefined
    await until(
      `${method} ${key}`,
      async () => {
        reply = await askAt(port, false, method, pathOf(key), value)
        return reply.status < 503
      },
      () => `${reply?.body} ${this.said}`,
    )
    return reply!
  }

  async write(index: number, key: string, value: string): Promise<void> {
    const reply = await this.ask(index, 'PUT', key, value)
    assert.equal(reply.status, 204, reply.body.toString())
  }

  async check(key: string, value: string): Promise<void> {
    for (const [index] of this.nodes.entries()) {
      const reply = await this.ask(index, 'GET', key)
      assert.equal(reply.status, 200, `${key} at ${this.nodes[index]!.name}: ${reply.body}`)
      assert.equal(reply.body.toString(), value)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.ended
    await this.allEnded()
  }
}

const peersOf = (dev: Dev): string[] => dev.nodes.map(({ peer }) => peer)

test('dev --nodes: a cluster that stops as one, and goes on over the same directory on the same ports', async () => {
  await using dev = await Dev.start(2)
  assert.deepEqual(
    dev.nodes.map(({ name }) => name),
    ['n1', 'n2'],
  )
  await dev.write(0, 'first', 'through n1')
  await dev.check('first', 'through n1')
  dev.signal('SIGTERM')
  assert.equal(await dev.ended, 0, dev.said)
  assert.deepEqual(
    dev.nodes.map(({ pid }) => isRunning(pid)),
    [false, false],
    'it waits for its nodes',
  )
  assert.match(dev.said, /^n1: stopped cleanly/m)
  assert.match(dev.said, /^n2: stopped cleanly/m)
  assert.equal(dev.printed.split('\n').length, 2, 'stdout holds the ready line only')

  await using again = await Dev.start(2)
  assert.deepEqual(peersOf(again), peersOf(dev))
  await again.check('first', 'through n1')
  again.interrupt()
  assert.equal(await again.ended, 0, again.said)
  for (const { name } of again.nodes) assert.match(again.said, new RegExp(`^${name}: stopped cleanly`, 'm'))
})

test('dev --nodes: n1 moves where its port is taken, one more joins, and a node that ends by itself ends all', async () => {
  const kept = decodePeerPorts(readFileSync(join(directory, 'dev.json'), 'utf8'))
  const stranger = createServer().listen(kept[0]!, '127.0.0.1')
  await once(stranger, 'listening')
  using _stranger = { [Symbol.dispose]: () => stranger.close() }
  await using dev = await Dev.start(3)
  const ports = peersOf(dev).map((peer) => Number(peer.split(':')[1]))
  assert.notEqual(ports[0], kept[0])
  assert.equal(ports[1], kept[1])
  assert.deepEqual(decodePeerPorts(readFileSync(join(directory, 'dev.json'), 'utf8')), ports)
  await dev.check('first', 'through n1')
  await dev.write(2, 'second', 'through n3')
  await dev.check('second', 'through n3')
  process.kill(dev.nodes[1]!.pid, 'SIGKILL')
  assert.equal(await dev.ended, 1)
  assert.match(dev.said, /^n2 ended by itself \(SIGKILL\): the others are stopped$/m)
  assert.deepEqual(
    dev.nodes.map(({ pid }) => isRunning(pid)),
    [false, false, false],
  )
})

test('dev --nodes: no node outlives it when it is killed, and all they acknowledged is there', async () => {
  await using dev = await Dev.start(3)
  await dev.check('second', 'through n3')
  await dev.write(1, 'third', 'through n2')
  dev.signal('SIGKILL')
  assert.equal(await dev.ended, 'SIGKILL')
  await dev.allEnded()
  await using again = await Dev.start(3)
  await again.check('third', 'through n2')
})
