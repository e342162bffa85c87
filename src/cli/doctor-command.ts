/**
 * `doctor`: looks at everything around a server that commonly goes wrong, changes nothing, and says what to do. Each check gives
 * a verdict; a check that itself fails is a verdict too, so one broken thing never hides the others.
 *
 * What lies within the log and the catalog is not looked at here: `DeepCheck` is the place for that.
 */
import { accessSync, constants, existsSync, readdirSync, readFileSync, statfsSync, statSync } from 'node:fs'
import { createServer } from 'node:net'
import { availableParallelism, freemem, totalmem } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { residentBytesMax } from '../config.ts'
import { holderOf } from '../host/directory-lock.ts'
import { directoryFormatVersion, NodeRecord } from '../host/node-record.ts'
import type { CommandContext } from './command-context.ts'
import type { ExitCode } from './failure.ts'
import { type Address, formatAddress, formatBytes, formatCount } from './quantity.ts'
import { print, styled } from './terminal.ts'

/** What a check found: `bad` keeps a server from working, `warning` may hurt later. */
export type Verdict = {
  readonly check: string
  readonly state: 'ok' | 'warning' | 'bad'
  readonly detail: string
  /** What to do about it. */
  readonly advice?: string
}

/** Looks into the log and the catalog of a data directory that no process holds. */
export type DeepCheck = (directory: string) => Promise<readonly Verdict[]>

const NODE_VERSION_MIN = [24, 14] as const
const OPEN_FILES_MIN = 1024
/** Room for a few log segments and compactions. */
const FREE_BYTES_MIN = 1024 ** 3

function checkNode(version: string): Verdict {
  const [major = 0, minor = 0] = version.replace(/^v/, '').split('.').map(Number)
  const [majorMin, minorMin] = NODE_VERSION_MIN
  const isOld = major < majorMin || (major === majorMin && minor < minorMin)
  return isOld
    ? { check: 'node', state: 'bad', detail: version, advice: `install Node ${majorMin}.${minorMin} or later` }
    : { check: 'node', state: 'ok', detail: version }
}

/** The closest directory above `path` that exists. */
function existingParent(path: string): string {
  let parent = dirname(path)
  while (!existsSync(parent) && parent !== dirname(parent)) parent = dirname(parent)
  return parent
}

function checkDirectory(directory: string): Verdict {
  const check = 'data directory'
  const path = resolve(directory)
  if (!existsSync(path)) {
    const parent = existingParent(path)
    accessSync(parent, constants.W_OK | constants.X_OK)
    return { check, state: 'ok', detail: `${path} does not exist yet; ${parent} is writable` }
  }
  const stats = statSync(path)
  if (!stats.isDirectory()) return { check, state: 'bad', detail: `${path} is not a directory` }
  accessSync(path, constants.R_OK | constants.W_OK | constants.X_OK)
  const mode = (stats.mode & 0o777).toString(8)
  if ((stats.mode & 0o022) !== 0) {
    const advice = `chmod go-w ${path}`
    return { check, state: 'warning', detail: `${path} can be changed by other users (mode ${mode})`, advice }
  }
  return { check, state: 'ok', detail: `${path} (mode ${mode})` }
}

async function checkLock(directory: string): Promise<Verdict> {
  const check = 'lock'
  const holder = existsSync(directory) ? await holderOf(directory) : undefined
  if (holder === undefined) return { check, state: 'ok', detail: 'free' }
  return {
    check,
    state: 'warning',
    detail: `held by process ${holder}`,
    advice: 'a second server cannot use this directory',
  }
}

function checkContent(directory: string): Verdict {
  const check = 'content'
  if (!existsSync(directory)) return { check, state: 'ok', detail: 'no data yet' }
  const names = readdirSync(directory)
  if (names.length === 0) return { check, state: 'ok', detail: 'empty' }
  if (!names.includes('catalog')) {
    const advice = 'use an empty directory, or the one that the server used before'
    return { check, state: 'bad', detail: `not empty, and without a catalog (${names.slice(0, 3).join(', ')})`, advice }
  }
  let segments = 0
  let bytes = 0
  for (const entry of readdirSync(join(directory, 'log'), { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue
    segments++
    bytes += statSync(join(entry.parentPath, entry.name)).size
  }
  const detail = `catalog and ${formatCount(segments)} log files (${formatBytes(bytes)})`
  return { check, state: 'ok', detail }
}

/** Opens the catalog, which is safe beside other readers, and reads who this node is. Nobody else may hold the directory. */
async function checkFormat(directory: string): Promise<Verdict> {
  const check = 'format'
  // Loaded only here: the engine below the catalog is of no use to any other command of a client.
  const { HostCatalog } = await import('../host/catalog.ts')
  const catalog = await HostCatalog.open(join(directory, 'catalog'))
  try {
    const { identity, log } = new NodeRecord(catalog)
    if (identity === undefined) return { check, state: 'ok', detail: 'no server has finished its first start here' }
    const { format, nodeId } = identity
    if (format !== directoryFormatVersion) {
      const advice = `this release reads format ${directoryFormatVersion}; use the release that wrote it`
      return { check, state: 'bad', detail: `format ${format}`, advice }
    }
    return { check, state: 'ok', detail: `format ${format}, node ${nodeId}, ${log?.shards ?? 0} shards` }
  } finally {
    await catalog.close()
  }
}

function checkSpace(directory: string): Verdict {
  const check = 'free space'
  const path = resolve(directory)
  const { bavail, bsize, type } = statfsSync(existsSync(path) ? path : existingParent(path))
  const bytes = bavail * bsize
  // Network and memory file systems: nfs, smb2, tmpfs.
  const kind = { 26985: 'NFS', [0xfe534d42]: 'SMB', 16914836: 'tmpfs' }[type]
  if (bytes < FREE_BYTES_MIN) {
    const advice = `make room: at least ${formatBytes(FREE_BYTES_MIN)} should be free`
    return { check, state: bytes < FREE_BYTES_MIN / 16 ? 'bad' : 'warning', detail: formatBytes(bytes), advice }
  }
  if (kind !== undefined) {
    const advice = 'use a local disk: syncs here are slow, or keep nothing'
    return { check, state: 'warning', detail: `${formatBytes(bytes)} on ${kind}`, advice }
  }
  return { check, state: 'ok', detail: formatBytes(bytes) }
}

function checkPort(address: Address): Promise<Verdict> {
  const check = 'http address'
  const detail = formatAddress(address)
  return new Promise((settle) => {
    const probe = createServer()
    probe.on('error', (error: NodeJS.ErrnoException) => {
      const isTaken = error.code === 'EADDRINUSE'
      settle({
        check,
        state: isTaken ? 'warning' : 'bad',
        detail: isTaken ? `${detail} is in use` : `${detail}: ${error.message}`,
        advice: isTaken ? 'stop what listens there, or choose another --http' : 'choose another --http',
      })
    })
    probe.listen({ ...address, exclusive: true }, () => {
      probe.close(() => settle({ check, state: 'ok', detail: `${detail} is free` }))
    })
  })
}

function checkOpenFiles(): Verdict {
  const check = 'open files'
  // Only Linux says it in a file; Node gives the soft limit no other way.
  if (!existsSync('/proc/self/limits')) return { check, state: 'ok', detail: 'limit not known on this system' }
  const limit = /^Max open files\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? 'unknown'
  if (Number(limit) >= OPEN_FILES_MIN || limit === 'unlimited') return { check, state: 'ok', detail: `limit ${limit}` }
  return {
    check,
    state: 'warning',
    detail: `limit ${limit}`,
    advice: `raise it to ${OPEN_FILES_MIN} or more: ulimit -n`,
  }
}

function checkMemory(budgetBytes: number): Verdict {
  const check = 'memory'
  // In a container the limit of the container counts; 0 or a huge number means that there is none.
  const constrained = process.constrainedMemory()
  const machine = totalmem()
  const total = constrained > 0 && constrained < machine ? constrained : machine
  const needed = residentBytesMax(budgetBytes)
  const detail = `budget ${formatBytes(budgetBytes)}, up to ${formatBytes(needed)} resident, of ${formatBytes(total)}`
  if (needed > total) return { check, state: 'bad', detail, advice: 'lower --memory' }
  if (total === machine && needed > freemem() + FREE_BYTES_MIN / 4) {
    const advice = `only ${formatBytes(freemem())} are free now; lower --memory if other programs need the rest`
    return { check, state: 'warning', detail, advice }
  }
  return { check, state: 'ok', detail }
}

function checkShards(shards: number): Verdict {
  const check = 'threads'
  const cores = availableParallelism()
  const detail = `${shards === 0 ? 'one per core' : `${shards} shards`}, ${cores} cores`
  if (shards <= 2 * cores) return { check, state: 'ok', detail }
  return { check, state: 'warning', detail, advice: `more than ${2 * cores} shards only wait for each other here` }
}

async function verdictOf(check: string, look: () => Verdict | Promise<Verdict>): Promise<Verdict> {
  try {
    return await look()
  } catch (error) {
    return { check, state: 'bad', detail: error instanceof Error ? error.message : String(error) }
  }
}

/** All verdicts for these settings. `deepCheck` runs last, and only if the directory exists and nobody holds it. */
export async function examine(
  settings: { readonly dataDir: string; readonly http: Address; readonly memory: number; readonly shards: number },
  deepCheck: DeepCheck | undefined,
): Promise<readonly Verdict[]> {
  const { dataDir } = settings
  const verdicts = [
    await verdictOf('node', () => checkNode(process.version)),
    await verdictOf('data directory', () => checkDirectory(dataDir)),
    await verdictOf('lock', () => checkLock(dataDir)),
    await verdictOf('content', () => checkContent(dataDir)),
    await verdictOf('free space', () => checkSpace(dataDir)),
    await verdictOf('http address', () => checkPort(settings.http)),
    await verdictOf('open files', () => checkOpenFiles()),
    await verdictOf('memory', () => checkMemory(settings.memory)),
    await verdictOf('threads', () => checkShards(settings.shards)),
  ]
  const isFree = verdicts.every(({ check, state }) => check !== 'lock' || state === 'ok')
  const isUsable = verdicts.every(
    ({ check, state }) => !['data directory', 'content'].includes(check) || state !== 'bad',
  )
  if (!isFree || !isUsable || !existsSync(join(dataDir, 'catalog'))) return verdicts
  verdicts.push(await verdictOf('format', () => checkFormat(dataDir)))
  if (deepCheck === undefined || verdicts.at(-1)?.state === 'bad') return verdicts
  try {
    return [...verdicts, ...(await deepCheck(dataDir))]
  } catch (error) {
    return [...verdicts, { check: 'log', state: 'bad', detail: error instanceof Error ? error.message : String(error) }]
  }
}

/** Prints the verdicts; 1 if any is bad. */
export async function doctorCommand(context: CommandContext, deepCheck: DeepCheck | undefined): Promise<ExitCode> {
  const { terminal, settings, output } = context
  const { dataDir = './data/dev' } = settings
  const verdicts = await examine({ ...settings, dataDir }, deepCheck)
  const isWell = verdicts.every(({ state }) => state !== 'bad')
  if (output === 'json') {
    await print(terminal.stdout, `${JSON.stringify({ ok: isWell, verdicts })}\n`)
    return isWell ? 0 : 1
  }
  const styles = { ok: 'green', warning: 'yellow', bad: 'red' } as const
  const width = Math.max(...verdicts.map(({ check }) => check.length))
  for (const { check, state, detail, advice } of verdicts) {
    const shown = styled(terminal, terminal.stdout, styles[state], state.padEnd(7))
    await print(
      terminal.stdout,
      `${shown}  ${check.padEnd(width)}  ${detail}${advice === undefined ? '' : `; ${advice}`}\n`,
    )
  }
  return isWell ? 0 : 1
}
