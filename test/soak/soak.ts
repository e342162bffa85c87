/**
 * `npm run soak -- --minutes N [--seed S] [--shards N] [--times N]`: a server with far more data than memory, under mixed load, stopped and
 * killed and started with other numbers of shards for as long as one likes; then everything is read back, by get and by list.
 *
 *   fill:    keys are written until the live data is `times` the memory of the server
 *   lives:   start; look at some keys; load of puts, overwrites, deletes, times to live, gets and lists; SIGKILL or SIGTERM
 *   verify:  every key by get, all keys by list
 *
 * Each client has keys of its own, so its writes have an order, and a witness knows what each key may show. Keys of a group share a
 * hash tag, so that a list of one is short. Values are made from the number of their write: nothing of them is kept here.
 *
 * The seed draws the work; what meets what at which instant is the machine's, so a seed does not repeat a run exactly.
 * One line of facts goes to evidence/runs.jsonl. Exit code 1, and the directory is kept, if anything was wrong; 2 for bad arguments.
 */
import { randomInt } from 'node:crypto'
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { SeededRandom } from '../../src/base/seeded-random.ts'
import { problemOf, type Reply, ServerProcess } from '../process/server-process.ts'
import { sourceUnderTest } from '../source-under-test.ts'
import { type Outcome, SoakValues, SoakWitness } from './soak-witness.ts'

const MiB = 1024 * 1024
const clients = 16
const groupKeys = 16
/** Mean size of values, for the number of keys; about a tenth of the keys has no value at a time. */
const valueBytesMean = 5200
const memoryOfShard = 70 * MiB
/** Clocks of requests are read around them; what a server reads may lie a little beside. */
const clockSlackMs = 20
const wrongMax = 20
const project = join(import.meta.dirname, '..', '..')
const durabilities = ['sync', 'interval', 'os'] as const

type Plan = {
  readonly minutes: number
  readonly seed: number
  readonly shardsMax: number
  readonly times: number
}

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** One soak over one directory. */
class Soak {
  readonly directory = mkdtempSync(join(tmpdir(), 'sunwise-soak-'))
  readonly wrong: string[] = []
  readonly refusals = new Map<string, number>()
  readonly witness = new SoakWitness()
  readonly facts = { lives: 0, kills: 0, stops: 0, puts: 0, deletes: 0, expiring: 0, gets: 0, lists: 0 }
  readonly keys: number
  memoryBytesMost = 0
  diskBytesMost = 0
  filledBytes = 0
  readonly #plan: Plan
  readonly #random: SeededRandom
  readonly #values: SoakValues
  readonly #started = performance.now()
  #writes = 0

  constructor(plan: Plan) {
    this.#plan = plan
    this.#random = new SeededRandom(plan.seed)
    this.#values = new SoakValues((into) => this.#random.fill(into))
    const groups = Math.ceil((this.memoryBytes * plan.times) / valueBytesMean / groupKeys / clients)
    this.keys = groups * groupKeys * clients
  }

  /** Memory of the server, however many shards it has. */
  get memoryBytes(): number {
    return this.#plan.shardsMax * memoryOfShard
  }

  get seconds(): number {
    return Math.round((performance.now() - this.#started) / 1000)
  }

  async run(): Promise<void> {
    await using first = await this.#start(this.#plan.shardsMax, 'os')
    await this.#fill(first)
    await this.#end(first, false)
    const byMs = performance.now() + this.#plan.minutes * 60_000
    while (performance.now() < byMs && this.wrong.length === 0) {
      await using server = await this.#start(
        this.#random.between(1, this.#plan.shardsMax),
        this.#random.pick(durabilities),
      )
      await this.#look(server, 400)
      const lifeMs = Math.min(byMs - performance.now(), this.#random.between(3000, 20_000))
      await this.#load(server, Math.max(1000, lifeMs), this.#random.chance(2, 3))
    }
    if (this.wrong.length > 0) return
    await using last = await this.#start(this.#plan.shardsMax, 'sync')
    await this.#verify(last)
    await this.#end(last, false)
  }

  say(text: string): void {
    process.stdout.write(`${String(this.seconds).padStart(6)} s  ${text}\n`)
  }

  async #start(shards: number, durability: string): Promise<ServerProcess> {
    const begun = performance.now()
    const flags = ['--shards', String(shards), '--durability', durability, '--memory', `${this.memoryBytes / MiB}mb`]
    const server = await ServerProcess.start(this.directory, { flags })
    await server.whenServing
    this.facts.lives++
    const { recoveredRecords } = server.ready
    const tookMs = Math.round(performance.now() - begun)
    this.say(
      `start ${this.facts.lives}: ${shards} shards, ${durability}; ${recoveredRecords} records of the log, ${tookMs} ms`,
    )
    return server
  }

  async #end(server: ServerProcess, isKill: boolean): Promise<void> {
    this.#measure(server)
    if (isKill) {
      this.facts.kills++
      await server.kill()
      return
    }
    this.facts.stops++
    const { code, said } = await server.stop()
    if (code !== 0) this.#note(`A clean stop ended with ${code}: ${said.slice(-2000)}`)
  }

  #measure(server: ServerProcess): void {
    const status = readFileSync(`/proc/${server.pid}/status`, 'utf8')
    const kilobytes = Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0)
    this.memoryBytesMost = Math.max(this.memoryBytesMost, kilobytes * 1024)
    this.diskBytesMost = Math.max(this.diskBytesMost, this.#diskBytes())
  }

  #diskBytes(): number {
    let bytes = 0
    for (const name of readdirSync(this.directory, { recursive: true }) as string[]) {
      bytes += statSync(join(this.directory, name), { throwIfNoEntry: false })?.size ?? 0
    }
    return bytes
  }

  #note(problem: string): void {
    if (this.wrong.length < wrongMax) this.say(`WRONG: ${problem}`)
    this.wrong.push(problem)
  }

  /** Every key once. */
  async #fill(server: ServerProcess): Promise<void> {
    const next = counter(this.keys)
    let filled = 0
    const run = async (): Promise<void> => {
      for (let key = next(); key !== undefined; key = next()) {
        filled = key
        while (!(await this.#put(server, key, 0))) await wait(5)
      }
    }
    const ticking = setInterval(() => {
      this.say(`fill: ${filled} of ${this.keys} keys, ${Math.round(this.filledBytes / MiB)} MiB`)
    }, 10_000)
    try {
      await Promise.all(Array.from({ length: clients }, run))
    } finally {
      clearInterval(ticking)
    }
    this.say(
      `filled: ${this.keys} keys, ${Math.round(this.filledBytes / MiB)} MiB, memory ${this.memoryBytes / MiB} MiB`,
    )
  }

  /** Mixed load until the server ends, which it does after `lifeMs`. */
  async #load(server: ServerProcess, lifeMs: number, isKill: boolean): Promise<void> {
    let isStopped = false
    const before = this.witness.acknowledgedWrites
    const random = this.#random.fork(`life ${this.facts.lives}`)
    const run = async (client: number): Promise<void> => {
      const own = random.fork(`client ${client}`)
      while (!isStopped && !server.isGone && this.wrong.length === 0) await this.#operate(server, client, own)
    }
    const running = Array.from({ length: clients }, (_, client) => run(client))
    await Promise.race([wait(lifeMs), server.exited])
    if (server.isGone) this.#note(`The server ended under load: ${server.said.slice(-2000)}`)
    // A kill meets requests under way; a clean stop answers them, and refuses what comes then.
    await this.#end(server, isKill)
    isStopped = true
    await Promise.all(running)
    const writes = this.witness.acknowledgedWrites - before
    this.say(
      `${isKill ? 'killed' : 'stopped'} after ${Math.round(lifeMs / 1000)} s: ${writes} writes; disk ${Math.round(this.#diskBytes() / MiB)} MiB`,
    )
  }

  async #operate(server: ServerProcess, client: number, random: SeededRandom): Promise<void> {
    const groups = this.keys / groupKeys / clients
    // Some keys are overwritten all the time, most rarely.
    const group = random.chance(1, 2) ? random.below(Math.ceil(groups / 20)) : random.below(groups)
    const key = (client * groups + group) * groupKeys + random.below(groupKeys)
    const draw = random.below(100)
    if (draw < 40) await this.#put(server, key, 0)
    else if (draw < 48) await this.#put(server, key, random.between(500, 30_000))
    else if (draw < 56) await this.#delete(server, key)
    else if (draw < 96) await this.#get(server, key)
    else await this.#list(server, Math.floor(key / groupKeys))
  }

  /** Whether it was acknowledged. */
  async #put(server: ServerProcess, key: number, ttlMs: number): Promise<boolean> {
    const write = ++this.#writes
    const value = this.#values.of(write)
    const fromMs = Date.now() - clockSlackMs
    const path = ttlMs === 0 ? pathOf(key) : `${pathOf(key)}?ttl=${ttlMs}`
    const ends = (byMs: number): Outcome => ({
      write,
      endsFromMs: ttlMs === 0 ? Infinity : fromMs + ttlMs,
      endsByMs: ttlMs === 0 ? Infinity : byMs + ttlMs,
    })
    const reply = await server.ask('PUT', path, value).catch(() => undefined)
    this.facts.puts++
    if (ttlMs > 0) this.facts.expiring++
    const isKnown = this.#noted(key, ends(Date.now() + clockSlackMs), reply)
    if (isKnown) this.filledBytes += value.length
    return isKnown
  }

  async #delete(server: ServerProcess, key: number): Promise<void> {
    const reply = await server.ask('DELETE', pathOf(key)).catch(() => undefined)
    this.facts.deletes++
    this.#noted(key, undefined, reply)
  }

  /** Tells the witness what the answer to a write means. */
  #noted(key: number, outcome: Outcome | undefined, reply: Reply | undefined): boolean {
    if (reply === undefined) this.witness.unknown(key, outcome)
    else if (reply.status < 300) {
      this.witness.acknowledged(key, outcome)
      return true
    } else if (this.#refused(reply)) this.witness.unknown(key, outcome)
    return false
  }

  /** Notes a refusal; true: it may have taken effect. */
  #refused(reply: Reply): boolean {
    const { code, outcome, detail } = problemOf(reply)
    this.refusals.set(code, (this.refusals.get(code) ?? 0) + 1)
    if (!/^(OVERLOADED|TIMEOUT|CLOSED|SHARD_STARTING)$/.test(code))
      this.#note(`A healthy server answers ${code}: ${detail}`)
    return outcome !== 'none'
  }

  async #get(server: ServerProcess, key: number): Promise<boolean> {
    const fromMs = Date.now() - clockSlackMs
    const reply = await server.ask('GET', pathOf(key)).catch(() => undefined)
    if (reply === undefined) return false
    this.facts.gets++
    const byMs = Date.now() + clockSlackMs
    if (reply.status !== 200 && reply.status !== 404) {
      if (reply.status === 300)
        this.#note(`${nameOf(key)} has siblings, though each write of it followed the one before`)
      else this.#refused(reply)
      return false
    }
    const write = reply.status === 404 ? 0 : this.#values.writeOf(reply.body)
    const problem = this.witness.judge(key, { write, fromMs, byMs })
    if (problem !== undefined) this.#note(`${nameOf(key)} ${problem}`)
    return true
  }

  /** The keys of one group, with values, which only the client writes to that waits for this. */
  async #list(server: ServerProcess, group: number): Promise<void> {
    const fromMs = Date.now() - clockSlackMs
    const path = `/v1/kv/default?prefix=${encodeURIComponent(`{${group}}`)}&limit=${2 * groupKeys}&values=1`
    const reply = await server.ask('GET', path).catch(() => undefined)
    if (reply === undefined) return
    this.facts.lists++
    const byMs = Date.now() + clockSlackMs
    if (reply.status !== 200) {
      this.#refused(reply)
      return
    }
    const page = JSON.parse(reply.body.toString('utf8')) as ListedPage
    // A page ends early where its values are many bytes: what follows is not judged.
    if (!page.complete) return
    const shown = new Map(page.keys.map((row) => [row.key, row]))
    for (let key = group * groupKeys; key < (group + 1) * groupKeys; key++) {
      const row = shown.get(nameOf(key))
      shown.delete(nameOf(key))
      const write = row === undefined ? 0 : this.#values.writeOf(bytesOf(row))
      const problem = this.witness.judge(key, { write, fromMs, byMs })
      if (problem !== undefined) this.#note(`In a list, ${nameOf(key)} ${problem}`)
    }
    for (const name of shown.keys()) this.#note(`A list shows ${name}, which was never written`)
  }

  /** Reads some keys of a server that has just started. */
  async #look(server: ServerProcess, count: number): Promise<void> {
    const keys = Array.from({ length: count }, () => this.#random.below(this.keys))
    const run = async (): Promise<void> => {
      for (let key = keys.pop(); key !== undefined; key = keys.pop()) await this.#get(server, key)
    }
    await Promise.all(Array.from({ length: clients }, run))
  }

  /** Every key by get, then all keys by list. */
  async #verify(server: ServerProcess): Promise<void> {
    const next = counter(this.keys)
    const run = async (): Promise<void> => {
      for (let key = next(); key !== undefined; key = next()) {
        if (key % 50_000 === 0) this.say(`verify: key ${key} of ${this.keys}`)
        while (!(await this.#get(server, key))) {
          if (server.isGone || this.wrong.length > wrongMax) return
          await wait(5)
        }
      }
    }
    await Promise.all(Array.from({ length: clients }, run))
    const listed = new Set<string>()
    const fromMs = Date.now() - clockSlackMs
    for (let cursor: string | undefined = ''; cursor !== undefined; ) {
      const path = `/v1/kv/default?limit=1000${cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`}`
      const reply = await server.ask('GET', path)
      if (reply.status !== 200) return this.#note(`The list answers ${reply.status}: ${reply.body.toString('utf8')}`)
      const page = JSON.parse(reply.body.toString('utf8')) as ListedPage
      for (const { key } of page.keys) {
        if (listed.has(key)) this.#note(`The list shows ${key} twice`)
        listed.add(key)
      }
      cursor = page.complete ? undefined : page.cursor
    }
    const shown = listed.size
    for (const key of this.witness.surelyLive(Date.now() + clockSlackMs)) {
      if (!listed.delete(nameOf(key))) this.#note(`The list lacks ${nameOf(key)}`)
    }
    // What is left may have expired since it was listed; anything else must not be there.
    const names = new Map(Array.from({ length: this.keys }, (_, key) => [nameOf(key), key]))
    for (const name of listed) {
      const key = names.get(name)
      if (key === undefined) this.#note(`The list shows ${name}, which was never written`)
      else if (!this.witness.mayShow(key, fromMs)) this.#note(`The list shows ${name}, which has no value`)
    }
    this.say(`verified: ${this.keys} keys by get, ${shown} by list`)
  }
}

type ListedRow = { readonly key: string; readonly value?: string; readonly value64?: string }
type ListedPage = { readonly keys: readonly ListedRow[]; readonly complete: boolean; readonly cursor?: string }

const bytesOf = ({ value, value64 }: ListedRow): Buffer =>
  value64 === undefined ? Buffer.from(value ?? '') : Buffer.from(value64, 'base64url')
const nameOf = (key: number): string => `{${Math.floor(key / groupKeys)}}${key % groupKeys}`
const pathOf = (key: number): string => `/v1/kv/default/${encodeURIComponent(nameOf(key))}`

/** 0 to count - 1, each to one caller. */
function counter(count: number): () => number | undefined {
  let at = 0
  return () => (at < count ? at++ : undefined)
}

/** The arguments; undefined if they are wrong. */
function planOf(): Plan | undefined {
  try {
    const { values } = parseArgs({
      options: {
        minutes: { type: 'string', default: '3' },
        seed: { type: 'string', default: String(randomInt(2 ** 31)) },
        shards: { type: 'string', default: '2' },
        times: { type: 'string', default: '10' },
      },
    })
    const plan = {
      minutes: Number(values.minutes),
      seed: Number(values.seed),
      shardsMax: Number(values.shards),
      times: Number(values.times),
    }
    const isRight = plan.minutes > 0 && plan.times > 0 && Number.isInteger(plan.shardsMax) && plan.shardsMax > 0
    return isRight && Number.isSafeInteger(plan.seed) ? plan : undefined
  } catch {
    return undefined
  }
}

const plan = planOf()
if (plan === undefined) {
  process.stderr.write('Usage: npm run soak -- [--minutes N] [--seed S] [--shards N at most] [--times N the memory]\n')
  process.exit(2)
}
// Asked before the run, since the tree may move on meanwhile.
const source = sourceUnderTest()
const soak = new Soak(plan)
soak.say(`soak of ${plan.minutes} minutes; seed ${plan.seed}; ${soak.directory}`)
try {
  await soak.run()
} catch (error) {
  soak.wrong.push(String(error))
  process.stderr.write(`${error instanceof Error ? error.stack : error}\n`)
}
const line = {
  run: 'soak',
  at: new Date().toISOString(),
  ...source,
  ...plan,
  keys: soak.keys,
  memoryBytes: soak.memoryBytes,
  memoryBytesMost: soak.memoryBytesMost,
  diskBytesMost: soak.diskBytesMost,
  ...soak.facts,
  acknowledgedWrites: soak.witness.acknowledgedWrites,
  unknownWrites: soak.witness.unknownWrites,
  refusals: Object.fromEntries(soak.refusals),
  failures: soak.wrong.length,
  seconds: soak.seconds,
}
mkdirSync(join(project, 'evidence'), { recursive: true })
appendFileSync(join(project, 'evidence', 'runs.jsonl'), `${JSON.stringify(line)}\n`)
soak.say(JSON.stringify(line))
if (soak.wrong.length === 0) rmSync(soak.directory, { recursive: true, force: true })
else soak.say(`${soak.wrong.length} wrong; seed ${plan.seed}; the directory ${soak.directory} is kept`)
process.exitCode = soak.wrong.length === 0 ? 0 : 1
