/**
 * Keeps README.md true. What the code knows is drawn from the code: the tables of errors, limits, settings, commands and
 * routes, each between `<!-- NAME:begin -->` and `<!-- NAME:end -->`. What a terminal shows is recorded from one: every
 * `console` block between the markers `session` is run, command by command, in one shell against a fresh server.
 *
 *     node scripts/readme.ts [--tables]
 *
 * rewrites both in place (with `--tables` the tables alone). The tests (test/readme.test.ts, test/base/errors.test.ts) draw and record again and compare; what
 * differs from run to run (digests, contexts, ids, times) is masked there. Prose between the markers is left alone.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { type ErrorCode, ErrorTable } from '../src/base/errors.ts'
import { runCommandLine } from '../src/cli/program.ts'
import { formatBytes } from '../src/cli/quantity.ts'
import { CONFIG_VARIABLE, type SettingName, SettingTable } from '../src/cli/settings.ts'
import type { Terminal } from '../src/cli/terminal.ts'
import { Limits } from '../src/config.ts'
import { type Route, routes } from '../src/host/http/route-table.ts'
import { evidenceTable, readEvidence } from './evidence.ts'
import { readScale, scaleTables } from './scale.ts'

const root = join(import.meta.dirname, '..')
const readmePath = join(root, 'README.md')
const program = join(root, 'src', 'main.ts')

/** The document as it stands. */
export function readReadme(): string {
  return readFileSync(readmePath, 'utf8')
}

/** What stands between the markers of a section, without the line breaks next to them. Throws if there is none. */
export function sectionOf(document: string, name: string): string {
  const [from, to] = sectionBounds(document, name)
  return document.slice(from, to).replace(/^\n+|\n+$/g, '')
}

function withSection(document: string, name: string, text: string): string {
  const [from, to] = sectionBounds(document, name)
  return `${document.slice(0, from)}\n${text}\n${document.slice(to)}`
}

function sectionBounds(document: string, name: string): [number, number] {
  const begin = `<!-- ${name}:begin -->`
  const from = document.indexOf(begin)
  const to = document.indexOf(`<!-- ${name}:end -->`)
  if (from < 0 || to < from) throw new Error(`The document has no section ${name}`)
  return [from + begin.length, to]
}

/** The cells of each body row of the first table in `text`, without blanks and backslashes around them. */
export function tableRows(text: string): string[][] {
  return text
    .split('\n')
    .filter((line) => line.startsWith('|'))
    .slice(2)
    .map((line) =>
      line
        .slice(1, -1)
        .split(/(?<!\\)\|/)
        .map((cell) => cell.trim().replaceAll('\\|', '|')),
    )
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

// Errors.

/** Where a code is thrown, in the sources beside the tables that only name codes. */
const tablesOfCodes = ['base/errors.ts', 'host/http/route-table.ts']

/** Codes that stand in the table but that nothing gives yet. */
export function codesNotGivenYet(): readonly ErrorCode[] {
  const folder = join(root, 'src')
  const names = (readdirSync(folder, { recursive: true }) as string[]).filter((name) => name.endsWith('.ts'))
  const text = names
    .filter((name) => !tablesOfCodes.includes(name))
    .map((name) => readFileSync(join(folder, name), 'utf8'))
    .join('\n')
  return (Object.keys(ErrorTable) as ErrorCode[]).filter((code) => !text.includes(`'${code}'`))
}

/** One row per code, by status. */
export function errorTable(): string {
  const unused = codesNotGivenYet()
  const codes = (Object.keys(ErrorTable) as ErrorCode[]).sort((a, b) => ErrorTable[a].status - ErrorTable[b].status)
  return table(
    ['Code', 'Status', 'Outcome', 'Retry', 'Exit', 'Meaning'],
    codes.map((code) => {
      const { status, title, outcome, retryable, exit } = ErrorTable[code]
      const meaning = unused.includes(code) ? `${title} (reserved: nothing gives it yet)` : title
      return [`\`${code}\``, String(status), outcome, retryable ? 'yes' : 'no', String(exit), meaning]
    }),
  )
}

// Limits.

/** What each limit bounds and what happens there; undefined for those that no user meets. */
const limitTexts: { readonly [Name in keyof typeof Limits]: string | undefined } = {
  slots: undefined,
  partitions: undefined,
  partitionsMax: undefined,
  replicasMax: 'Replicas of a key: the highest `n` of a bucket; more: `BAD_BUCKET`',
  clusterMembersMax: undefined,
  memberAddressBytesMax: undefined,
  zoneBytesMax: undefined,
  clockOffsetMsMax: 'Farthest that the clock of a node may be off those of the others; farther: `CLOCK_UNSURE`',
  movingPartitionsMax: undefined,
  topologyChangesMax: undefined,
  topologyHistoryMax: undefined,
  topologyBytesMax: undefined,
  topologyChangesPendingMax: undefined,
  keyBytesMax: 'A key has 1 byte to this many; else `BAD_KEY`',
  hintTargetBytesMax: undefined,
  storedKeyBytesMax: undefined,
  hintBytesMax: undefined,
  hintAgeMsMax: undefined,
  repairBytesPerSecondDefault: undefined,
  valueBytesDefault: 'Largest value unless `--value-max` or the bucket says otherwise; beyond: `VALUE_TOO_LARGE`',
  valueBytesMax: 'Highest `--value-max`',
  contentTypeBytesMax: 'Longest content type; longer: `BAD_REQUEST`',
  ifMatchETagsMax: 'ETags of one If-Match list; more: `BAD_REQUEST`',
  siblingsWarn: 'Siblings at which a write is counted in `sunwise_shard_sibling_warnings_total`',
  siblingsMax: 'Siblings of one key; a write that would add one more: `TOO_MANY_SIBLINGS`',
  contextBytesMax: 'Longest context token; longer: `BAD_CONTEXT`',
  ttlMsMax: 'Longest time to live; longer: `BAD_TTL`, never clamped',
  expiryGraceMs: 'An expired value is invisible at once, and turns into a deletion after this',
  bucketsMax: 'Buckets; one more: `TOO_MANY_BUCKETS`',
  bucketNameBytesMax: 'Longest bucket name; longer: `BAD_BUCKET`',
  batchOperationsMax: 'Operations of one batch; more: `REQUEST_TOO_LARGE`',
  batchBytesMax: 'Body of one batch; more: `REQUEST_TOO_LARGE`',
  responseBytesMax: 'Values in the answer to one batch; operations beyond it: `RESPONSE_LIMIT` each',
  listLimitDefault: 'Keys of a page of a list unless `limit` says otherwise',
  listLimitMax: 'Highest `limit`; beyond: `BAD_REQUEST`',
  listsPendingMax: 'Pages of lists that a member of a cluster gathers at once; one more: `OVERLOADED`',
  timeoutMsDefault: 'Deadline of a request that names none; past it: `TIMEOUT`',
  timeoutMsMax: 'Longest deadline; longer: `BAD_TIMEOUT`',
  arenaBytesMax: 'Memory for the records of one shard',
  slabBytesMax: undefined,
  shardsMax: 'Shards of one node; more: `BAD_CONFIG`',
  pendingRequestsMax: 'Requests of one thread that may wait for shards; one more: `OVERLOADED`',
  pendingBytesMax:
    'Bytes of unfinished requests that a member of a cluster coordinates; one that brings more: `OVERLOADED`',
  ringBytes: undefined,
  jobMemoryBytes: 'Buffers that a thread of the job pool keeps between flushes and merges; they count in `--memory`',
  jobMemoryShare: 'Those of all such threads at most, as a part of `--memory`',
  ringOutboxBytesMax: 'Bytes that may wait for one shard in one thread; more: `OVERLOADED`',
  ringMessageBytesMax: undefined,
  shardColdCommandsMax:
    'Commands of one shard that may wait for slow reads of tables; at it, it takes no more from its rings',
  shardColdBytesMax: 'Likewise their bytes',
  shardAnswersPendingMax: 'Requests of one shard that may wait for its disk; at it, it takes no more from its rings',
  stagedRecordsMax: 'Writes of one shard that may wait to become visible; at it, it takes no more from its rings',
  openGroupBytesMax:
    'Bytes of one group of the log before it is written; at it, the shard takes no more from its rings',
  listReplyBytesMax: undefined,
  diskReserveBytesMax:
    'Disk that is kept for a full disk (see "When the disk is full"); with less than as much free beside it, writes that grow: `DISK_FULL`',
  diskReserveMemoryShare: 'The same, as a part of `--memory`: the least of the three counts',
  diskReserveDiskShare: 'The same, as a part of the file system',
  diskSlackShare: 'Part of the file system that must be free on top of that for writes that grow',
  jobsMax: undefined,
  catalogCommitsPendingMax: 'Changes of buckets and settings that may wait for the catalog; one more: `OVERLOADED`',
  controlConnectionsMax: undefined,
  backupLogHoldMs: 'How long a backup may take to copy the logs of a running node; longer: `OVERLOADED`, and no backup',
  connectionsMax: 'HTTP connections of one thread; one more is closed at once',
  requestBodiesShare:
    "Part of `--memory` that bodies of requests may take beside the data, each thread an equal share; one that does not fit in its thread's: `OVERLOADED`",
  answersWaitingShare: 'Likewise answers that wait for slow clients; a read that does not fit: `OVERLOADED`',
  httpBytesLeast: 'Bodies, and as many answers, that a thread may hold however small `--memory` is',
  targetCharactersMax: 'Path and query of a request; longer: `URI_TOO_LONG`',
  headerBytesMax: 'Request line and header fields; larger: `HEADERS_TOO_LARGE`',
  jsonDepthMax: 'Nesting of JSON; deeper: `BAD_REQUEST`',
  propertiesBytesMax: 'Properties of a bucket; larger: `REQUEST_TOO_LARGE`',
  lingerMs: 'How long a refused body is read and thrown away',
  lingerBytesMax: 'How much of a refused body is read and thrown away',
  peerMessageBytesMax: undefined,
  peerFrameBytesMax: undefined,
  peerQueueBytesMax: undefined,
  peerLightQueueBytesMax: undefined,
  peerQueueBytesAllMax: undefined,
  peerReceiveBytesAllMax: undefined,
  peerAddressesMax: undefined,
  peerConnectionsMax: undefined,
  peerStrangersMax: undefined,
  peerHandshakeMs: undefined,
  peerPingMs: undefined,
  peerDeadMs: undefined,
  peerIdleMs: undefined,
  peerRestMsMin: undefined,
  peerRestMsMax: undefined,
  peerDatagramBytesMax: undefined,
  stretchMsMax: undefined,
  workerHangMs: 'A shard worker that does not turn for so long is restarted',
  workerCrashesMax: 'So many crashes of workers within `workerCrashWindowMs` end the process with `WORKERS_FAILED`',
  workerCrashWindowMs: 'See `workerCrashesMax`',
}

function durationText(ms: number): string {
  const units = [
    [86_400_000, 'd'],
    [60_000, 'min'],
    [1_000, 's'],
  ] as const
  const unit = units.find(([size]) => ms >= size && ms % size === 0)
  return unit === undefined ? `${ms} ms` : `${ms / unit[0]} ${unit[1]}`
}

function limitValue(name: string, value: number): string {
  if (name.endsWith('Share')) return `1/${1 / value}`
  if (name.includes('Bytes')) return formatBytes(value).replace(/\.0(?= )/, '')
  return /Ms(Max|Default)?$/.test(name) ? durationText(value) : String(value)
}

/** One row per limit that a user can meet. */
export function limitTable(): string {
  const names = Object.keys(Limits) as (keyof typeof Limits)[]
  const rows = names.flatMap((name) => {
    const text = limitTexts[name]
    return text === undefined ? [] : [[`\`${name}\``, limitValue(name, Limits[name]), text]]
  })
  return table(['Limit', 'Value', 'What it bounds'], rows)
}

// Settings and commands.

/** One row per setting: flag, variable, key of the file, default. */
export function settingTable(): string {
  const names = Object.keys(SettingTable) as SettingName[]
  const rows = names.map((name) => {
    const { flag, short, argument, env, fallback, help } = SettingTable[name]
    const flags = [...(short === undefined ? [] : [`\`${short}\``]), `\`${flag}${argument ? ` ${argument}` : ''}\``]
    const shown = fallback === undefined || fallback === '' ? 'none' : `\`${fallback}\``
    return [flags.join(', '), `\`${env}\``, `\`${name}\``, shown, help]
  })
  const config = ['`--config <file>`', `\`${CONFIG_VARIABLE}\``, '', 'none', 'the file with the keys of this table']
  return table(['Flag', 'Variable', 'Key', 'Default', 'What'], [...rows, config])
}

/** What `sunwise ...` prints, run in this process. */
export async function helpText(...words: string[]): Promise<string> {
  const stdout = new PassThrough()
  let text = ''
  stdout.setEncoding('utf8').on('data', (part: string) => {
    text += part
  })
  const terminal: Terminal = {
    environment: {},
    stdin: new PassThrough(),
    stdout,
    stderr: new PassThrough().resume(),
    onSignal: () => () => {},
    exit: () => {},
  }
  const code = await runCommandLine([...words, '--help'], terminal, {
    startServer: () => Promise.reject(new Error('Help starts no server')),
  })
  if (code !== 0) throw new Error(`Help for "${words.join(' ')}" ended with ${code}`)
  stdout.end()
  await new Promise((resolve) => stdout.on('end', resolve))
  return text
}

/** Terms and their explanations in the part of a help text under `title`, continued lines joined. */
function helpEntries(help: string, title: string): [string, string][] {
  const lines = help
    .slice(help.indexOf(`${title}:\n`))
    .split('\n')
    .slice(1)
  const entries: [string, string][] = []
  for (const line of lines) {
    const match = /^ {2}(\S.*?)(?: {2,}(\S.*))?$/.exec(line)
    if (match !== null) entries.push([match[1]!, match[2] ?? ''])
    else if (line.startsWith('   ') && entries.length > 0) {
      const last = entries.at(-1)!
      last[1] = `${last[1]} ${line.trim()}`.trim()
    } else break
  }
  return entries
}

/** Options that every command has, or that the table of settings explains. */
const sharedFlags = new Set([...Object.values(SettingTable).map(({ flag }) => flag), '--config', '--help'])

const flagOf = (term: string): string => /--[a-z0-9-]+/.exec(term)?.[0] ?? term

/** Names of the commands, in their order. */
export async function commandNames(): Promise<string[]> {
  const names = helpEntries(await helpText(), 'Commands').map(([term]) => term.split(' ')[0]!)
  return names.filter((name) => name !== 'help')
}

/** One row per command: how to call it, what it does, and the options that it alone has. */
export async function commandTable(): Promise<string> {
  return table(['Command', 'What'], await commandRows())
}

/** Rows of the commands below `parents`; a command that only has others below it is not one of its own. */
async function commandRows(...parents: string[]): Promise<string[][]> {
  const rows: string[][] = []
  for (const [term, text] of helpEntries(await helpText(...parents), 'Commands')) {
    const [name, ...operands] = term.replace(' [options]', '').split(' ')
    if (name === 'help') continue
    const words = [...parents, name!]
    const below = await commandRows(...words)
    const options = helpEntries(await helpText(...words), 'Options').filter(
      ([option]) => !sharedFlags.has(flagOf(option)),
    )
    const own = options.map(([option, what]) => `\`${option}\` ${what}`)
    if (below.length === 0) rows.push([`\`${[...words, ...operands].join(' ')}\``, [text, ...own].join('<br>')])
    rows.push(...below)
  }
  return rows
}

/** Every flag of every command. */
export async function commandFlags(): Promise<ReadonlySet<string>> {
  const flags = new Set<string>()
  const commands = (await commandRows()).map(([shown]) =>
    shown!
      .replaceAll('`', '')
      .replace(/ [<[].*/, '')
      .split(' '),
  )
  for (const words of [[], ...commands]) {
    for (const [term] of helpEntries(await helpText(...words), 'Options')) flags.add(flagOf(term))
  }
  return flags
}

// Routes.

/** One row per route: what it does, its query parameters, its answers. */
export function routeTable(): string {
  const rows = (routes as readonly Route[]).map(({ method, path, summary, query, answers }) => [
    `\`${method} ${path}\``,
    summary,
    query.map((name) => `\`${name}\``).join(' '),
    Object.keys(answers).join(' '),
  ])
  return table(['Route', 'What', 'Query', 'Answers'], rows)
}

// Terminals.

/** A block of a terminal: its commands, each with what it printed. */
type Step = { readonly command: string; readonly output: string }

function stepsOf(block: string): Step[] {
  const steps: { command: string; output: string }[] = []
  let isOpen = false
  for (const line of block.split('\n')) {
    if (isOpen) steps.at(-1)!.command += `\n${line}`
    else if (line.startsWith('$ ')) steps.push({ command: line.slice(2), output: '' })
    else steps.at(-1)!.output += `${line}\n`
    isOpen = (isOpen || line.startsWith('$ ')) && line.endsWith('\\')
  }
  return steps
}

const consoleBlock = /(```console\n)([\s\S]*?)\n(```)/g

/** The commands of the recorded section, with what the document says they print. */
export function sessionSteps(document: string): Step[] {
  return [...sectionOf(document, 'session').matchAll(consoleBlock)].flatMap((match) => stepsOf(match[2]!))
}

/** Header fields that are the same for every answer, left out of the recording; the document says so. */
const commonFields = /^(Date|Connection|Keep-Alive|Sunwise-Request-Id): .*\n/gm

const started = /^sunwise \S+ ready http=(\S+) .*\bpid=(\d+)$/m

async function startServer(directory: string): Promise<{ child: ChildProcess; line: string; http: string }> {
  const child = spawn(process.execPath, [program, 'dev', '--http', '127.0.0.1:0'], {
    cwd: directory,
    env: cleanEnvironment(),
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const line = await new Promise<string>((resolve, reject) => {
    let text = ''
    child.stdout!.setEncoding('utf8').on('data', (part: string) => {
      text += part
      if (started.test(text)) resolve(text.trim())
    })
    child.on('exit', (code) => reject(new Error(`The server ended with ${code} before it was ready`)))
  })
  return { child, line, http: started.exec(line)![1]! }
}

function cleanEnvironment(): Record<string, string | undefined> {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith('SUNWISE_'))
  return Object.fromEntries(kept)
}

function runShell(script: string, environment: Record<string, string | undefined>): Promise<string> {
  const shell = spawn('bash', ['--noprofile', '--norc', '-c', script], {
    cwd: root,
    env: environment,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const chunks: Buffer[] = []
  shell.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
  return new Promise((resolve, reject) => {
    shell.on('error', reject)
    shell.on('close', () => resolve(Buffer.concat(chunks).toString('utf8')))
  })
}

const documentedHttp = 'http://127.0.0.1:7070'

/** Runs the commands in one shell against a fresh server. Gives the server's ready line and the steps as they went. */
export async function recordSession(commands: readonly string[]): Promise<{ readyLine: string; steps: Step[] }> {
  const directory = mkdtempSync(join(tmpdir(), 'sunwise-readme-'))
  try {
    // A terminal shows no progress of transfers; a pipe would.
    writeFileSync(join(directory, '.curlrc'), 'silent\nshow-error\n')
    const { child, line, http } = await startServer(directory)
    try {
      const parts = commands.map(
        (command, index) => `printf '\\036${index}\\n'\n${command.replaceAll(documentedHttp, http)}\n`,
      )
      const environment = { ...cleanEnvironment(), CURL_HOME: directory, SUNWISE_ENDPOINT: http, NO_COLOR: '1' }
      const said = await runShell(`exec 2>&1\n${parts.join('')}`, environment)
      const outputs = said
        .split('\u001e')
        .slice(1)
        .map((part) => part.slice(part.indexOf('\n') + 1))
      const steps = commands.map((command, index) => ({ command, output: textOf(outputs[index] ?? '', http) }))
      return { readyLine: line.replaceAll(http, documentedHttp), steps }
    } finally {
      const ended = new Promise((resolve) => child.on('exit', resolve))
      child.kill('SIGTERM')
      await ended
    }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function textOf(output: string, http: string): string {
  const plain = output.replaceAll('\r', '').replaceAll(http, documentedHttp).replace(commonFields, '')
  return plain === '' || plain.endsWith('\n') ? plain : `${plain}\n`
}

/** `document` with the outputs of a recording in the places of the old ones. */
function withSession(document: string, steps: readonly Step[]): string {
  let next = 0
  const section = sectionOf(document, 'session').replace(
    consoleBlock,
    (_, open: string, block: string, close: string) => {
      const taken = steps.slice(next, next + stepsOf(block).length)
      next += taken.length
      return `${open}${taken.map(({ command, output }) => `$ ${command}\n${output}`).join('')}${close}`
    },
  )
  return withSection(document, 'session', section)
}

/** What differs between two runs, replaced by its name. */
export function masked(text: string): string {
  return text
    .replace(/(ETag: |"etag":)"[0-9a-f]{16}"/g, '$1ETAG')
    .replace(/(Sunwise-Context: |"context":")[A-Za-z0-9_-]+/g, '$1CONTEXT')
    .replace(/"cursor":"[A-Za-z0-9_-]+"/g, '"cursor":CURSOR')
    .replace(/"requestId":"[^"]*"/g, '"requestId":ID')
    .replace(/("expires":|Sunwise-Expires: )\d{13}/g, '$1TIME')
    .replace(/Content-Length: \d+/g, 'Content-Length: BYTES')
    .replace(/\b(node|shards|pid)=\S+/g, '$1=VALUE')
}

/** The tables by the names of their sections. */
export async function drawnSections(): Promise<Readonly<Record<string, string>>> {
  return {
    errors: errorTable(),
    limits: limitTable(),
    settings: settingTable(),
    commands: await commandTable(),
    routes: routeTable(),
    evidence: evidenceTable(readEvidence(root)),
    scale: scaleTables(readScale(root)),
  }
}

/** Draws the tables anew and, unless they alone are wanted, records the walk in the terminal. */
async function rewrite(tablesOnly: boolean): Promise<void> {
  let document = readReadme()
  for (const [name, text] of Object.entries(await drawnSections())) document = withSection(document, name, text)
  if (tablesOnly) return writeFileSync(readmePath, document)
  const { readyLine, steps } = await recordSession(sessionSteps(document).map(({ command }) => command))
  document = withSession(document, steps)
  document = withSection(document, 'start', `\`\`\`console\n$ npm ci && npm start\n${readyLine}\n\`\`\``)
  writeFileSync(readmePath, document)
}

if (import.meta.main) await rewrite(process.argv.includes('--tables'))
