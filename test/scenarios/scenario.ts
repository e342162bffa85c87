/**
 * Scenarios as transcripts: a script of commands for a simulated ring, each followed by what came of it. The files beside this one are
 * read by people first, and run by scenarios.test.ts, which compares every line. `node test/scenarios/scenario.ts FILE` prints one anew.
 *
 *   > nodes 3 [sloppy] [lww]       starts a ring; every key has 3 replicas, fewer with fewer nodes; [members=2]: the others are no part of it
 *   > put NODE KEY VALUE [...]     [with NAME] the context of an earlier get, [w=LEVEL] [sloppy] [ttl=MS] [if-absent]
 *   > delete NODE KEY [...]        [with NAME] [w=LEVEL]
 *   > get NODE KEY [...]           [r=LEVEL] [as NAME]: keeps its context under a name
 *   > batch NODE OP; OP; ...       each put KEY VALUE, get KEY or delete KEY
 *   > list NODE [...]            [prefix=TEXT] [limit=COUNT] [values] [r=LEVEL] [as NAME]: keeps its cursor; [with NAME]: goes on behind it
 *   > kill NODE | power NODE | wipe NODE | start NODE | pause NODE MS
 *   > cut NODE NODE | mend         both directions of a link; all links
 *   > refuse NODE | accept NODE    its shard has no room for anything
 *   > clock NODE MS                its clock is set forward, or back
 *   > join NODE | leave NODE [down] | replace NODE NODE [down] | remove NODE | abort
 *                                  asks the first node that is up and a member for other members, or to take back the moves under way; remove: by
 *                                  force, without what only it has
 *   > until STAGE KEY | rest       time passes until the move of a key's partition is at a stage; until nothing moves
 *   > members                      who is one, and which epoch each node goes by
 *   > place KEY                    which nodes hold a key, and where it moves to
 *   > wait MS                      time passes
 *   > notice                       time passes until every node knows which of the others are there
 *   > dump KEY                     what each replica has: value@actor.counter, and the vector
 *   > hints                        what nodes keep for others
 *
 * A transcript begins with what it shows, and where that is in the sources:
 *
 *   # Shows: a sentence or some.
 *   # Where: what happens, src/file.ts: name; what comes then, src/other.ts.
 */
import { readFileSync } from 'node:fs'
import type { SunwiseError } from '../../src/base/errors.ts'
import { abortMoves, movesLeft } from '../../src/cluster/topology/moves.ts'
import type { ChangeOutcome, TopologyChange } from '../../src/cluster/topology/proposals.ts'
import { changeMembers, forceRemove, type MemberChange } from '../../src/cluster/topology/transitions.ts'
import type {
  BatchOperation,
  BatchResult,
  ListPage,
  QuorumLevel,
  ReadAnswer,
  Receipt,
  WriteAnswer,
} from '../../src/replication/requests.ts'
import { ActorRegistry } from '../../src/versions/actor-registry.ts'
import { decodeSet } from '../../src/versions/set-codec.ts'
import type { VectorEntry } from '../../src/versions/version-set.ts'
import { acceptorOf, idOf, nameOf, RingSim } from '../sim/ring/ring-sim.ts'
import type { SimNode } from '../sim/ring/sim-node.ts'

const answerMs = 6000
const pauseMs = 600_000
/** All moves of a change. */
const movesMs = 600_000

/** Runs the commands of a transcript; the transcript as it should be. */
export function runScenario(text: string): string {
  const single = [...text.matchAll(/^> (?:put|delete|get) \S+ (\S+)/gm)].map(([, key]) => key!)
  const batched = [...text.matchAll(/^> batch \S+ (.*)$/gm)].flatMap(([, list]) =>
    list!.split('; ').map((each) => each.split(' ')[1]!),
  )
  const keys = [...single, ...batched]
  const scenario = new Scenario([...new Set(keys)])
  const lines: string[] = []
  for (const line of text.split('\n')) {
    if (line.startsWith('> ')) lines.push(line, ...scenario.run(line.slice(2)).map((said) => `  ${said}`))
    else if (line === '' || line.startsWith('#')) lines.push(line)
  }
  return lines.join('\n')
}

class Scenario {
  readonly #keys: readonly string[]
  #sim: RingSim | undefined
  readonly #contexts = new Map<string, Uint8Array | undefined>()
  readonly #cursors = new Map<string, Uint8Array | undefined>()
  /** Actors as they are met: a, b, c. */
  readonly #actors = new ActorRegistry()

  constructor(keys: readonly string[]) {
    this.#keys = keys
  }

  run(command: string): string[] {
    const [verb, ...words] = command.split(' ')
    if (verb === 'nodes') {
      const [count] = words
      this.#sim = new RingSim({
        seed: 'scenario',
        nodes: Number(count),
        operations: 0,
        faults: [],
        keys: this.#keys,
        exchangeRestMs: 10_000,
        isSteady: true,
        sloppy: words.includes('sloppy'),
        conflict: words.includes('lww') ? 'lww' : 'siblings',
        members: numberOf(words, 'members') ?? Number(count),
      })
      this.#sim.start()
      this.#sim.pass(1000)
      return []
    }
    const [first = '', second = '', third = ''] = words
    switch (verb) {
      case 'put':
        return this.#write(first, second, third, words.slice(3))
      case 'delete':
        return this.#write(first, second, undefined, words.slice(2))
      case 'get':
        return this.#get(first, second, words.slice(2))
      case 'kill':
        this.#node(first).kill()
        return []
      case 'power':
        this.#node(first).cutPower()
        return []
      case 'wipe':
        this.#node(first).loseDisk()
        return []
      case 'start':
        this.#node(first).start()
        this.#ring.pass(1000)
        return []
      case 'pause':
        this.#node(first).pause(Number(second))
        return []
      case 'cut':
        this.#ring.network.cut(first, second)
        this.#ring.network.cut(second, first)
        return []
      case 'mend':
        this.#ring.network.mend()
        return []
      case 'refuse':
        this.#node(first).refusalOneIn = 1
        return []
      case 'accept':
        this.#node(first).refusalOneIn = 0
        return []
      case 'batch':
        return this.#batch(first, words.slice(1).join(' ').split('; '))
      case 'list':
        return this.#list(first, words.slice(1))
      case 'clock':
        this.#node(first).clock.jumpEpoch(Number(second))
        return []
      case 'join':
        return this.#changeMembers({ type: 'join', nodeId: idOf(first), address: first, acceptor: acceptorOf(first) })
      case 'leave':
        return this.#changeMembers({ type: 'leave', nodeId: idOf(first), isDown: second === 'down' })
      case 'replace': {
        const joiner = { nodeId: idOf(second), address: second, acceptor: acceptorOf(second) }
        return this.#changeMembers({ type: 'replace', leaver: idOf(first), isDown: third === 'down', joiner })
      }
      case 'remove':
        return this.#change((topology) => forceRemove(topology, idOf(first)))
      case 'abort':
        return this.#change((topology) => abortMoves(topology, topology.batch))
      case 'until':
        return this.#until(() => this.#ring.placeOf(second).stage === first)
      case 'rest':
        return this.#until(() => this.#ring.isAtRest)
      case 'members':
        return this.#members()
      case 'place':
        return this.#place(first)
      case 'notice':
        this.#ring.passUntilNoticed()
        return []
      case 'wait':
        this.#ring.pass(Number(first))
        return []
      case 'dump':
        return this.#dump(first)
      case 'hints':
        return this.#hints()
      default:
        throw new Error(`No such command: ${command}`)
    }
  }

  get #ring(): RingSim {
    if (this.#sim === undefined) throw new Error('A scenario begins with "nodes"')
    return this.#sim
  }

  #node(name: string): SimNode {
    const node = this.#ring.nodes.find((each) => each.name === name)
    if (node === undefined) throw new Error(`No such node: ${name}`)
    return node
  }

  #write(at: string, key: string, value: string | undefined, words: readonly string[]): string[] {
    const options = {
      context: this.#contextOf(words),
      w: levelOf(words, 'w'),
      sloppy: words.includes('sloppy') ? true : undefined,
      ttlMs: numberOf(words, 'ttl'),
      ifNoneMatch: words.includes('if-absent') ? ('*' as const) : undefined,
      timeoutMs: 3000,
    }
    const { bucket } = this.#ring
    const said = this.#wait<WriteAnswer>(at, ({ coordinator }, done) => {
      if (value === undefined) coordinator.delete(bucket, bytesOf(key), options, done)
      else coordinator.put(bucket, bytesOf(key), bytesOf(value), options, done)
    })
    if (typeof said === 'string') return [said]
    return [`ok${said.siblings > 1 ? `, ${said.siblings} siblings` : ''}; ${receiptText(said.receipt)}`]
  }

  #get(at: string, key: string, words: readonly string[]): string[] {
    const options = { r: levelOf(words, 'r'), timeoutMs: 3000 }
    const said = this.#wait<ReadAnswer>(at, ({ coordinator }, done) =>
      coordinator.get(this.#ring.bucket, bytesOf(key), options, done),
    )
    if (typeof said === 'string') return [said]
    const name = words[words.indexOf('as') + 1]
    if (words.includes('as') && name !== undefined) this.#contexts.set(name, said.context)
    const values = said.values.map(({ value }) => textOf(value))
    return [`${values.length === 0 ? '(nothing)' : values.join(', ')}; ${receiptText(said.receipt)}`]
  }

  #batch(at: string, texts: readonly string[]): string[] {
    const operations = texts.map((text): BatchOperation => {
      const [op, key = '', value = ''] = text.split(' ')
      if (op === 'put') return { op, key: bytesOf(key), value: bytesOf(value) }
      if (op !== 'get' && op !== 'delete') throw new Error(`No such operation: ${text}`)
      return { op, key: bytesOf(key) }
    })
    const said = this.#wait<readonly BatchResult[]>(at, ({ coordinator }, done) =>
      coordinator.batch(this.#ring.bucket, operations, { timeoutMs: 3000 }, done),
    )
    if (typeof said === 'string') return [said]
    return said.map((result, index) => `${texts[index]}: ${batchResultText(result)}`)
  }

  #list(at: string, words: readonly string[]): string[] {
    const after = words[words.indexOf('with') + 1]
    if (words.includes('with') && this.#cursors.get(after!) === undefined) throw new Error(`No cursor "${after}"`)
    const options = {
      prefix: bytesOf(words.find((word) => word.startsWith('prefix='))?.slice('prefix='.length) ?? ''),
      limit: numberOf(words, 'limit') ?? 100,
      values: words.includes('values'),
      r: levelOf(words, 'r'),
      cursor: words.includes('with') ? this.#cursors.get(after!) : undefined,
      timeoutMs: 3000,
    }
    const said = this.#wait<ListPage>(at, ({ coordinator }, done) => coordinator.list(this.#ring.bucket, options, done))
    if (typeof said === 'string') return [said]
    const name = words[words.indexOf('as') + 1]
    if (words.includes('as') && name !== undefined) this.#cursors.set(name, said.cursor)
    const shown = said.keys.map(({ key, answer }) => {
      const values = answer?.values.map(({ value }) => textOf(value)).join(', ')
      return values === undefined ? textOf(key) : `${textOf(key)}: ${values}`
    })
    const { acks, replicas } = said.receipt!
    const end = said.cursor === undefined ? 'that is all' : 'and more'
    return [...(shown.length === 0 ? ['(nothing)'] : shown), `${end}; ${acks} of ${replicas} replicas`]
  }

  #changeMembers(change: MemberChange): string[] {
    return this.#change((topology) => changeMembers(topology, [change]))
  }

  #change(apply: TopologyChange): string[] {
    const asked = this.#ring.nodes.find((each) => {
      return each.isUp && !each.isPaused && this.#ring.memberNames.includes(each.name)
    })!
    let said: ChangeOutcome | undefined
    asked.act((node) =>
      node.change(apply, (outcome) => {
        said = outcome
      }),
    )
    this.#ring.passUntil(() => said !== undefined, movesMs)
    if (said === undefined) return ['no answer']
    if (said.type === 'decided')
      return [`epoch ${said.topology.epoch}: ${movesLeft(said.topology)} partitions are to move`]
    return [
      said.type === 'refused'
        ? `refused: ${named(said.refusal.why)}`
        : `${said.error.code}, outcome ${said.error.outcome}`,
    ]
  }

  #until(isThere: () => boolean): string[] {
    return this.#ring.passUntil(isThere, movesMs) ? [] : [`it does not come to that: ${this.#ring.explain()}`]
  }

  #members(): string[] {
    const { members, epoch } = this.#ring.topology
    const named = members.map(({ nodeId, state }) => nameOf(nodeId) + (state === 'normal' ? '' : ` (${state})`))
    const others = this.#ring.nodes.flatMap((each) => {
      const known = each.isUp ? each.node.topology?.epoch : epoch
      if (known === epoch) return []
      return [known === undefined ? `${each.name} goes by none` : `${each.name} still goes by epoch ${known}`]
    })
    return [`epoch ${epoch}: ${named.join(', ')}`, ...others]
  }

  #place(key: string): string[] {
    const { stage, old, new: planned } = this.#ring.placeOf(key)
    const from = old.map(nameOf).join(', ')
    const to = planned.map(nameOf).join(', ')
    if (stage === 'stable') return [from === to ? from : `${from}; to be ${to}`]
    return [`${stage}: from ${from} to ${to}`]
  }

  #contextOf(words: readonly string[]): Uint8Array | undefined {
    const at = words.indexOf('with')
    if (at < 0) return undefined
    const name = words[at + 1]!
    if (!this.#contexts.has(name)) throw new Error(`No context "${name}"`)
    return this.#contexts.get(name)
  }

  /** The answer, or what went wrong in words. */
  #wait<Answer>(
    at: string,
    start: (node: SimNode['node'], done: (error: SunwiseError | undefined, answer: Answer | undefined) => void) => void,
  ): Answer | string {
    let said: Answer | string | undefined
    this.#node(at).act((node) =>
      start(node, (error, answer) => {
        said = answer ?? named(`${error!.code}, outcome ${error!.outcome}: ${error!.message}`)
      }),
    )
    // A node that is paused hears of it when it goes on.
    this.#ring.passUntil(() => said !== undefined || !this.#node(at).isPaused, pauseMs)
    this.#ring.passUntil(() => said !== undefined, answerMs)
    return said ?? 'no answer'
  }

  #dump(key: string): string[] {
    return this.#ring.replicasOf(key).map((node) => {
      const { name } = node
      if (!node.isUp) return `${name}: down`
      const bytes = this.#ring.held(node, key)
      const set = decodeSet(bytes, 0, bytes.length, this.#actors.indexOf)
      if (typeof set === 'string') throw new Error(set)
      const versions = set.versions.map((version) => {
        return `${version.tombstone ? '(deleted)' : textOf(version.value)}@${this.#dot(version)}`
      })
      if (set.vector.length === 0) return `${name}: nothing`
      return `${name}: ${versions.join(' ')} [${set.vector.map((entry) => this.#dot(entry)).join(' ')}]`
    })
  }

  #dot({ actor, counter }: VectorEntry): string {
    return `${String.fromCharCode(0x61 + actor)}.${counter}`
  }

  #hints(): string[] {
    const lines: string[] = []
    for (const each of this.#ring.nodes) {
      if (!each.isUp) continue
      for (const [target, count] of each.node.hints.counts())
        lines.push(`${each.name} keeps ${count} for ${nameOf(target)}`)
    }
    return lines.length === 0 ? ['none'] : lines
  }
}

/** A text in which nodes have their names. */
function named(text: string): string {
  return text.replace(/\b[0-9a-f]{16}\b/g, nameOf)
}

function batchResultText(result: BatchResult): string {
  if ('error' in result) return `${result.error.code}, outcome ${result.error.outcome}`
  if (result.op !== 'get') return 'ok'
  return result.answer.values.map(({ value }) => textOf(value)).join(', ') || '(nothing)'
}

function receiptText({ acks, replicas, durable, nodes, repaired }: Receipt): string {
  const parts = (nodes ?? [])
    .map(({ node, isFallback }) => nameOf(node) + (isFallback ? " in another's place" : ''))
    .sort()
  const notes = [durable ? '' : 'not durable', (repaired ?? 0) > 0 ? `${repaired} repaired` : ''].filter(Boolean)
  return [`${acks} of ${replicas} (${parts.join(', ')})`, ...notes].join(', ')
}

function levelOf(words: readonly string[], name: string): QuorumLevel | undefined {
  const text = words.find((word) => word.startsWith(`${name}=`))?.slice(name.length + 1)
  if (text === 'one' || text === 'quorum' || text === 'all') return text
  return text === undefined ? undefined : Number(text)
}

function numberOf(words: readonly string[], name: string): number | undefined {
  const text = words.find((word) => word.startsWith(`${name}=`))?.slice(name.length + 1)
  return text === undefined ? undefined : Number(text)
}

function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

function textOf(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes)
}

if (import.meta.main) process.stdout.write(runScenario(readFileSync(process.argv[2]!, 'utf8')))
