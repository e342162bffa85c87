/**
 * Scenarios as transcripts: a script of commands for a simulated ring, each followed by what came of it. The files beside this one are
 * read by people first, and run by scenarios.test.ts, which compares every line. `node test/scenarios/scenario.ts FILE` prints one anew.
 *
 *   > nodes 3 [sloppy]             starts a ring; every key has 3 replicas, fewer with fewer nodes
 *   > put NODE KEY VALUE [...]     [with NAME] the context of an earlier get, [w=LEVEL] [sloppy] [ttl=MS] [if-absent]
 *   > delete NODE KEY [...]        [with NAME] [w=LEVEL]
 *   > get NODE KEY [...]           [r=LEVEL] [as NAME]: keeps its context under a name
 *   > kill NODE | power NODE | wipe NODE | start NODE | pause NODE MS
 *   > cut NODE NODE | mend         both directions of a link; all links
 *   > refuse NODE | accept NODE    its shard has no room for anything
 *   > wait MS                      time passes
 *   > notice                       time passes until every node knows which of the others are there
 *   > dump KEY                     what each replica has: value@actor.counter, and the vector
 *   > hints                        what nodes keep for others
 */
import { readFileSync } from 'node:fs'
import type { SunwiseError } from '../../src/base/errors.ts'
import type { QuorumLevel, ReadAnswer, Receipt, WriteAnswer } from '../../src/replication/requests.ts'
import { ActorRegistry } from '../../src/versions/actor-registry.ts'
import { decodeSet } from '../../src/versions/set-codec.ts'
import type { VectorEntry } from '../../src/versions/version-set.ts'
import { nameOf, RingSim } from '../sim/ring/ring-sim.ts'
import type { SimNode } from '../sim/ring/sim-node.ts'

const answerMs = 6000

/** Runs the commands of a transcript; the transcript as it should be. */
export function runScenario(text: string): string {
  const keys = [...text.matchAll(/^> (?:put|delete|get) \S+ (\S+)/gm)].map(([, key]) => key!)
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
  /** Actors as they are met: a, b, c. */
  readonly #actors = new ActorRegistry()

  constructor(keys: readonly string[]) {
    this.#keys = keys
  }

  run(command: string): string[] {
    const [verb, ...words] = command.split(' ')
    if (verb === 'nodes') {
      const [count, mode] = words
      this.#sim = new RingSim({
        seed: 'scenario',
        nodes: Number(count),
        operations: 0,
        faults: [],
        keys: this.#keys,
        exchangeRestMs: 10_000,
        isSteady: true,
        sloppy: mode === 'sloppy',
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
        said = answer ?? `${error!.code}, outcome ${error!.outcome}: ${error!.message}`
      }),
    )
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
