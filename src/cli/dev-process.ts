/**
 * One node of `dev --nodes`: `start` as a process of its own, by the same program and the same Node flags as this one.
 *
 * It is in a process group of its own, so that Ctrl-C reaches `dev` alone, which then tells each node once: a node that hears of it
 * twice ends at once. A channel tells it when `dev` is gone, however that ended (main.ts): no node is left behind.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import type { Readable } from 'node:stream'

/** What its ready line says. */
export type NodeReady = {
  readonly http: string
  readonly peer: string
  readonly nodeId: string
  readonly dataDir: string
  readonly pid: number
}

/** A longer line goes on as more than one. */
const lineCharactersMax = 65_536

/** Calls `take` with each line of a stream, the last one with or without its end. */
export function takeLines(stream: Readable, take: (line: string) => void): void {
  let text = ''
  stream.setEncoding('utf8').on('data', (part: string) => {
    const lines = (text + part).split('\n')
    text = lines.pop()!
    for (const line of lines) take(line)
    if (text.length < lineCharactersMax) return
    take(text)
    text = ''
  })
  stream.on('end', () => {
    if (text !== '') take(text)
  })
}

function readyOf(line: string): NodeReady | undefined {
  try {
    const { event, http, peer, nodeId, dataDir, pid } = JSON.parse(line) as Record<string, unknown>
    if (event !== 'ready' || typeof http !== 'string' || typeof peer !== 'string') return undefined
    return { http, peer, nodeId: String(nodeId), dataDir: String(dataDir), pid: Number(pid) }
  } catch {
    return undefined
  }
}

export class DevProcess {
  readonly name: string
  readonly #child: ChildProcess
  /** Undefined where it ends before. */
  readonly ready: Promise<NodeReady | undefined>
  /** How it ended, in words. */
  readonly ended: Promise<string>

  /** `say` gets each line that it says, but for the one that says it is ready. */
  constructor(name: string, words: readonly string[], say: (line: string) => void) {
    this.name = name
    this.#child = spawn(process.execPath, [...process.execArgv, process.argv[1]!, 'start', ...words, '-o', 'json'], {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      detached: true,
    })
    takeLines(this.#child.stderr!, say)
    this.ended = new Promise((resolve) => {
      this.#child.on('error', (error) => resolve(error.message))
      this.#child.on('close', (code, signal) => resolve(signal ?? `code ${code}`))
    })
    const ready = new Promise<NodeReady>((resolve) => {
      takeLines(this.#child.stdout!, (line) => {
        const said = readyOf(line)
        if (said === undefined) say(line)
        else resolve(said)
      })
    })
    this.ready = Promise.race([ready, this.ended.then(() => undefined)])
  }

  /** Of no effect on one that has ended. */
  signal(signal: 'SIGTERM' | 'SIGKILL'): void {
    this.#child.kill(signal)
  }
}
