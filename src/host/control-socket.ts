/**
 * How another process of the same user speaks to a running node: a Unix socket `control` in the data directory, whose access is that of
 * the directory (mode 700). Whoever holds the directory's lock owns the name, so one that a dead node left is replaced.
 *
 *   request   one line of JSON, at most 1 KiB:   { "op": "hold" | "releaseLogs" | "check" }
 *   answer    one line of JSON:                  { "protocol": 1, "result": ... } or { "protocol": 1, "error": { code, message } }
 *
 * A connection asks one thing after the other. A hold is the connection's: it ends with it, however the asker ends.
 */
import { rmSync } from 'node:fs'
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { SunwiseError } from '../base/errors.ts'
import { Limits } from '../config.ts'
import type { HeldShard } from '../storage/hold.ts'
import { shortPathOf } from './directory-lock.ts'
import type { ErrorMessage } from './messages.ts'
import type { LogRow } from './node-record.ts'

const protocolVersion = 1
const socketName = 'control'
const requestBytesMax = 1024
/** Rows of very many tables. */
const answerBytesMax = 256 * 1024 * 1024
const newline = 10
/** A hold waits for a sync of each log. */
const answerMsMax = 60_000

/** What a backup copies of a node. */
export type HeldNode = {
  readonly nodeId: string
  readonly log: LogRow
  /** Rows of the catalog that say what the node is and which buckets it has. */
  readonly rows: readonly (readonly [string, Uint8Array])[]
  readonly shards: readonly HeldShard[]
}

/** Files of a node that stay as they are. */
export type Hold = {
  readonly held: HeldNode
  /** Throws where what was held is held no more. */
  check(): void
  /** Gives back logs only, or all; does nothing where that was done. */
  release(what: 'log' | 'all'): void
}

/** What the socket asks of its node. */
export type ControlNode = {
  /** Rejects where the node cannot, or where another hold is under way. */
  hold(): Promise<Hold>
}

export type ControlSocket = { close(): Promise<void> }

/** Listens in a directory whose lock is held. Rejects with DIRECTORY_UNUSABLE. */
export async function openControlSocket(directory: string, node: ControlNode): Promise<ControlSocket> {
  const path = shortPathOf(directory)
  const server = createServer()
  const open = new Set<Socket>()
  server.on('connection', (socket) => {
    if (open.size >= Limits.controlConnectionsMax) return void socket.destroy()
    open.add(socket)
    socket.on('close', () => open.delete(socket))
    new Conversation(socket, node)
  })
  try {
    const name = join(path.directory, socketName)
    rmSync(name, { force: true })
    await listening(server, name)
  } catch (cause) {
    throw new SunwiseError('DIRECTORY_UNUSABLE', `Cannot listen in "${directory}": ${String(cause)}`, { cause })
  } finally {
    path.dispose()
  }
  server.unref()
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of open) socket.destroy()
      }),
  }
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, () => {
      server.off('error', reject)
      server.on('error', () => {})
      resolve()
    })
  })
}

/** One connection. */
class Conversation {
  readonly #socket: Socket
  readonly #node: ControlNode
  #request = ''
  #isAsked = false
  #hold: Hold | undefined
  #isEnded = false

  constructor(socket: Socket, node: ControlNode) {
    this.#socket = socket
    this.#node = node
    socket.unref()
    socket.on('error', () => socket.destroy())
    socket.on('close', () => this.#end())
    socket.on('data', (bytes) => this.#take(bytes.toString('latin1')))
  }

  #take(text: string): void {
    this.#request += text
    const end = this.#request.indexOf('\n')
    // Who sends more than it may, or before it has its answer, is none of ours.
    if (this.#isAsked || this.#request.length > requestBytesMax) return void this.#socket.destroy()
    if (end < 0) return
    const line = this.#request.slice(0, end)
    this.#request = this.#request.slice(end + 1)
    this.#isAsked = true
    this.#answer(line).then(
      (result) => this.#say({ result }),
      (error: unknown) => {
        const { code, message } =
          error instanceof SunwiseError ? error : new SunwiseError('INTERNAL', `The node failed: ${String(error)}`)
        this.#say({ error: { code, message } })
      },
    )
  }

  async #answer(line: string): Promise<unknown> {
    switch (opOf(line)) {
      case 'hold': {
        if (this.#hold !== undefined) throw new SunwiseError('BAD_REQUEST', 'This connection holds the files already')
        const hold = await this.#node.hold()
        if (this.#isEnded) hold.release('all')
        else this.#hold = hold
        return encodeHeld(hold.held)
      }
      case 'releaseLogs':
        this.#checked().release('log')
        return null
      case 'check':
        this.#checked()
        return null
      default:
        throw new SunwiseError('BAD_REQUEST', 'The control socket knows hold, releaseLogs and check')
    }
  }

  /** The hold of this connection, which still stands. */
  #checked(): Hold {
    if (this.#hold === undefined) throw new SunwiseError('BAD_REQUEST', 'This connection holds nothing')
    this.#hold.check()
    return this.#hold
  }

  #say(answer: { readonly result: unknown } | { readonly error: ErrorMessage }): void {
    this.#isAsked = false
    if (!this.#isEnded) this.#socket.write(`${JSON.stringify({ protocol: protocolVersion, ...answer })}\n`)
  }

  #end(): void {
    this.#isEnded = true
    this.#hold?.release('all')
    this.#hold = undefined
  }
}

function opOf(line: string): unknown {
  try {
    const request = JSON.parse(line) as { readonly op?: unknown } | null
    return request?.op
  } catch {
    return undefined
  }
}

/** Bytes become text: JSON has none. */
type HeldJson = Omit<HeldNode, 'rows' | 'shards'> & {
  readonly rows: readonly (readonly [string, string])[]
  readonly shards: readonly (Omit<HeldShard, 'segments'> & {
    readonly segments: readonly { readonly segment: number; readonly bytes: number; readonly head: string | null }[]
  })[]
}

function encodeHeld(held: HeldNode): HeldJson {
  return {
    ...held,
    rows: held.rows.map(([key, value]) => [key, Buffer.from(value).toString('base64')] as const),
    shards: held.shards.map((shard) => ({
      ...shard,
      segments: shard.segments.map(({ segment, bytes, head }) => ({
        segment,
        bytes,
        head: head === undefined ? null : Buffer.from(head).toString('base64'),
      })),
    })),
  }
}

function decodeHeld(held: HeldJson): HeldNode {
  return {
    ...held,
    rows: held.rows.map(([key, value]) => [key, Buffer.from(value, 'base64')] as const),
    shards: held.shards.map((shard) => ({
      ...shard,
      segments: shard.segments.map(({ segment, bytes, head }) => ({
        segment,
        bytes,
        head: head === null ? undefined : Buffer.from(head, 'base64'),
      })),
    })),
  }
}

/** The other end: asks a running node. */
export class ControlClient {
  readonly #socket: Socket
  readonly #directory: string
  #answer: Buffer[] = []
  #answerBytes = 0
  #waiting: { readonly resolve: (line: string) => void; readonly reject: (error: SunwiseError) => void } | undefined
  #isClosed = false

  private constructor(socket: Socket, directory: string) {
    this.#socket = socket
    this.#directory = directory
    socket.on('data', (bytes: Buffer) => this.#take(bytes))
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      this.#isClosed = true
      this.#waiting?.reject(this.#gone())
    })
  }

  /** Connects to the node that holds a directory; undefined where none listens there. */
  static async connect(directory: string): Promise<ControlClient | undefined> {
    const path = shortPathOf(directory)
    try {
      const socket = createConnection(join(path.directory, socketName))
      await new Promise<void>((resolve, reject) => {
        socket.once('connect', resolve)
        socket.once('error', reject)
      })
      return new ControlClient(socket, directory)
    } catch {
      return undefined
    } finally {
      path.dispose()
    }
  }

  /** Lets the node hold its files until this connection ends. Rejects as the node does. */
  async hold(): Promise<HeldNode> {
    return decodeHeld((await this.#ask('hold')) as HeldJson)
  }

  async releaseLogs(): Promise<void> {
    await this.#ask('releaseLogs')
  }

  /** Rejects where the node does not hold its files any more. */
  async check(): Promise<void> {
    await this.#ask('check')
  }

  close(): void {
    this.#socket.destroy()
  }

  async #ask(op: string): Promise<unknown> {
    if (this.#isClosed) throw this.#gone()
    this.#socket.setTimeout(answerMsMax, () => this.#socket.destroy())
    const line = await new Promise<string>((resolve, reject) => {
      this.#waiting = { resolve, reject }
      this.#socket.write(`${JSON.stringify({ op })}\n`)
    }).finally(() => {
      this.#waiting = undefined
      this.#socket.setTimeout(0)
    })
    const { protocol, result, error } = JSON.parse(line) as {
      readonly protocol: number
      readonly result?: unknown
      readonly error?: ErrorMessage
    }
    if (protocol !== protocolVersion) {
      const message = `The node in "${this.#directory}" is of another release; use the program of that release`
      throw new SunwiseError('DIRECTORY_LOCKED', message)
    }
    if (error !== undefined) throw new SunwiseError(error.code, error.message)
    return result
  }

  #take(bytes: Buffer): void {
    this.#answer.push(bytes)
    this.#answerBytes += bytes.length
    if (this.#answerBytes > answerBytesMax) return void this.#socket.destroy()
    if (bytes.at(-1) !== newline) return
    const line = Buffer.concat(this.#answer).toString('utf8')
    this.#answer = []
    this.#answerBytes = 0
    this.#waiting?.resolve(line)
  }

  #gone(): SunwiseError {
    const message = `The node in "${this.#directory}" has ended or broken off; look at its log and try again`
    return new SunwiseError('NOT_READY', message)
  }
}
