/**
 * `dev --nodes N`: a cluster for trying things out, of N processes of this machine (dev-process.ts), their data in n1, n2, ... below the
 * data directory.
 *
 *   a new n1       begins the cluster on any free port; the others are started when its ready line says where it is, and that is kept
 *   a kept n1      is given its port (dev-ports.ts), or another one if that is taken; all start at once, since it may need the others
 *   the others     are told to join n1, which those that are members already did
 *
 * One fate: a node that ends by itself ends all, with exit code 1.
 */
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { SunwiseError } from '../base/errors.ts'
import { version } from '../host/version.ts'
import { type CommandContext, integerFrom, parsedOption } from './command-context.ts'
import { freePort, peerHost, readPeerPorts, writePeerPorts } from './dev-ports.ts'
import { DevProcess, type NodeReady } from './dev-process.ts'
import type { ExitCode } from './failure.ts'
import { formatAddress } from './quantity.ts'
import { type SettingName, SettingTable } from './settings.ts'
import { sayHowToTalk } from './start-command.ts'
import { note, print } from './terminal.ts'

/** Enough to see a cluster lose two of its nodes and move data; each takes memory and threads of the same machine. */
export const devNodesMax = 9

/** How many nodes `dev` is to run. @throws SunwiseError `BAD_CONFIG` */
export function devNodesOf(context: CommandContext): number {
  const parse = (text: string): number | undefined => {
    const count = integerFrom(1)(text)
    return count !== undefined && count <= devNodesMax ? count : undefined
  }
  return parsedOption(context, 'nodes', '--nodes', parse, `a number from 1 to ${devNodesMax}`) ?? 1
}

/** Settings that are of one node: each gets its own. */
const ownSettings: readonly SettingName[] = ['dataDir', 'http', 'peer', 'join', 'output']

/** The options that were typed and are the same for all. What comes from the environment is there anyway. */
function commonWords({ options }: CommandContext): string[] {
  const words: string[] = []
  for (const name of Object.keys(SettingTable) as SettingName[]) {
    const value = options[name]
    if (value === undefined || ownSettings.includes(name)) continue
    const { flag } = SettingTable[name]
    words.push(value === true ? flag : `${flag}=${value}`)
  }
  if (options['config'] !== undefined) words.push(`--config=${options['config']}`)
  return words
}

function checkSettings({ settings }: CommandContext, count: number): void {
  const { peer, advertise, zone, replaces, http, dataDir } = settings
  if (peer !== undefined || settings.join.length > 0 || [advertise, zone, replaces].some((text) => text !== ''))
    throw new SunwiseError(
      'BAD_CONFIG',
      '--nodes makes a cluster of its own, without --peer, --join, --replaces, --advertise and --zone: use start for those',
    )
  if (http.port !== 0 && http.port + count - 1 > 65_535)
    throw new SunwiseError('BAD_CONFIG', `--http ${formatAddress(http)} leaves no room for ${count} ports from there`)
  if (existsSync(join(dataDir!, nameOf(count))))
    throw new SunwiseError(
      'BAD_CONFIG',
      `The cluster in ${dataDir} has more nodes than ${count}: give a higher --nodes, or another --data-dir`,
    )
}

const nameOf = (index: number): string => `n${index + 1}`

class DevCluster {
  readonly #context: CommandContext
  readonly #directory: string
  readonly #words: readonly string[]
  readonly #ports: (number | undefined)[]
  readonly #nodes: DevProcess[] = []
  #isStopping = false
  #hasFailed = false

  constructor(context: CommandContext) {
    this.#context = context
    this.#directory = context.settings.dataDir!
    this.#words = commonWords(context)
    this.#ports = [...readPeerPorts(this.#directory)]
  }

  /** Starts them all; undefined where they were told to stop meanwhile, or one ended. @throws SunwiseError */
  async start(count: number): Promise<readonly NodeReady[] | undefined> {
    const ports = await this.#settledPorts(count)
    if (this.#isStopping) return undefined
    const first = this.#spawn(0, ports[0]!)
    const seed = ports[0] === 0 ? (await first.ready)?.peer : formatAddress({ host: peerHost, port: ports[0]! })
    if (seed === undefined || this.#isStopping) return undefined
    for (let index = 1; index < count; index++) this.#spawn(index, ports[index]!, seed)
    const ready = await Promise.all(this.#nodes.map((node) => node.ready))
    return this.#isStopping || !ready.every((node) => node !== undefined) ? undefined : ready
  }

  /** Lets them finish what is under way. */
  stop(): void {
    this.#isStopping = true
    for (const node of this.#nodes) node.signal('SIGTERM')
  }

  kill(): void {
    this.#isStopping = true
    for (const node of this.#nodes) node.signal('SIGKILL')
  }

  /** Settles when all that were started have ended: whether each did because it was told to. */
  async ended(): Promise<boolean> {
    await Promise.all(this.#nodes.map((node) => node.ended))
    return !this.#hasFailed
  }

  /**
   * The peer port of each node; 0: any, of one that nobody knows. Before the first is started, so that none takes what is another's. That of
   * n1 is kept before there is an n2.
   */
  async #settledPorts(count: number): Promise<number[]> {
    const isThere = (index: number): boolean => existsSync(join(this.#directory, nameOf(index)))
    if (this.#ports[0] === undefined && isThere(1))
      throw new SunwiseError(
        'DIRECTORY_UNUSABLE',
        `The nodes in ${this.#directory} cannot find each other: its dev.json, which says where they were, is gone or damaged`,
      )
    const ports: number[] = []
    const taken: number[] = []
    for (let index = 0; index < count; index++) {
      const kept = this.#ports[index]
      const free = kept === undefined ? 0 : await freePort(kept)
      if (free === undefined) taken.push(kept!)
      ports.push(free ?? (await freePort())!)
    }
    if (taken.length > 1)
      throw new SunwiseError(
        'ADDRESS_IN_USE',
        `Ports ${taken.join(', ')}, by which the nodes in ${this.#directory} know each other, are in use: perhaps they run already`,
      )
    return ports
  }

  #spawn(index: number, peerPort: number, seed?: string): DevProcess {
    const { terminal, settings } = this.#context
    const { host, port } = settings.http
    const name = nameOf(index)
    const own = [
      `--data-dir=${join(this.#directory, name)}`,
      `--http=${formatAddress({ host, port: port === 0 ? 0 : port + index })}`,
      `--peer=${formatAddress({ host: peerHost, port: peerPort })}`,
      ...(seed === undefined ? [] : [`--join=${seed}`]),
    ]
    const node = new DevProcess(name, [...this.#words, ...own], (line) => note(terminal, `${name}: ${line}`))
    this.#nodes.push(node)
    node.ready.then((ready) => this.#keepPort(index, ready))
    node.ended.then((how) => this.#noteEnd(node, how))
    return node
  }

  #keepPort(index: number, ready: NodeReady | undefined): void {
    if (ready === undefined) return
    this.#ports[index] = Number(ready.peer.slice(ready.peer.lastIndexOf(':') + 1))
    try {
      writePeerPorts(this.#directory, this.#ports)
    } catch (error) {
      note(this.#context.terminal, `cannot keep where ${nameOf(index)} is: ${(error as Error).message}`)
      this.#hasFailed = true
      this.stop()
    }
  }

  #noteEnd(node: DevProcess, how: string): void {
    const { terminal } = this.#context
    if (this.#isStopping) {
      if (how !== 'code 0') note(terminal, `${node.name} ended (${how})`)
      return
    }
    note(terminal, `${node.name} ended by itself (${how}): the others are stopped`)
    this.#hasFailed = true
    this.stop()
  }
}

function readyLine({ output, settings }: CommandContext, nodes: readonly NodeReady[]): string {
  const { pid } = process
  if (output === 'json') {
    const named = nodes.map((node, index) => ({ name: nameOf(index), ...node }))
    return JSON.stringify({ event: 'ready', version, nodes: named, dataDir: settings.dataDir, pid })
  }
  const http = nodes.map((node) => node.http).join(',')
  return `sunwise ${version} ready nodes=${nodes.length} http=${http} data=${settings.dataDir} pid=${pid}`
}

/** Runs a cluster of `count` nodes until it is told to stop, or one of them ends. */
export async function devClusterCommand(context: CommandContext, count: number): Promise<ExitCode> {
  const { terminal, settings } = context
  checkSettings(context, count)
  mkdirSync(settings.dataDir!, { recursive: true })
  const cluster = new DevCluster(context)
  let signals = 0
  const release = terminal.onSignal((signal) => {
    signals++
    if (signals > 1) {
      cluster.kill()
      terminal.exit(1)
    } else {
      note(terminal, `${signal}: the nodes finish requests under way; once more ends them at once`)
      cluster.stop()
    }
  })
  try {
    const nodes = await cluster.start(count)
    if (nodes !== undefined) {
      await print(terminal.stdout, `${readyLine(context, nodes)}\n`)
      sayHowToTalk(context, nodes[0]!.http, nodes.at(-1)!.http)
    }
    return (await cluster.ended()) ? 0 : 1
  } finally {
    release()
  }
}
