/**
 * The lock of a data directory: a Unix socket in it on which the holder listens (Node has no flock). The kernel ends the
 * listening with the process, however that dies, so a socket that refuses connections is nobody's.
 *
 * The directory holds names `lock.N`; whoever listens on the highest one holds the lock. To take it: list; ask the highest
 * name, and give up if somebody listens; else give the next number to a socket of one's own, which `link` does for exactly one
 * of several starters; list again, and withdraw if there is a higher name now. The holder removes lower names, except the one
 * below its own. A release ends the listening and leaves the name.
 *
 * Why no two can hold it: the highest number never falls, since nobody removes the highest name. A socket listens before it has
 * its name, so a name is dead only once its process has let go. Who verified that it has the highest name is found listening by
 * everybody who lists afterwards, and nobody takes a higher number without having found the one below it dead. (A fixed name
 * that a starter removes when it is dead cannot do this: between looking and removing, another may have taken it.)
 *
 * Not covered: two machines that share the directory over a network file system see each other's sockets as dead.
 */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  existsSync,
  linkSync,
  mkdtempSync,
  constants as modes,
  openSync,
  readdirSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve as resolvePath } from 'node:path'
import { SunwiseError } from '../base/errors.ts'

const answerMsMax = 2_000
const triesMax = 16
/** Socket addresses hold 103 (macOS) or 107 (Linux) bytes; this leaves room for the longest name. */
const directoryBytesMax = 64
const namePattern = /^lock\.([1-9][0-9]{0,14})$/
const newNamePrefix = 'lock.new.'
/** What is said of a holder that does not tell its process id. */
const unknownHolder = 'unknown'

/** A held lock. */
export type DirectoryLock = {
  /** Gives the directory free. A second call does nothing. */
  release(): Promise<void>
}

/**
 * Locks a directory for this object, against other processes and against others in this process.
 *
 * Rejects with DIRECTORY_LOCKED, naming the holder's process, or DIRECTORY_UNUSABLE where the directory cannot hold a socket.
 */
export async function acquireDirectoryLock(directory: string): Promise<DirectoryLock> {
  const server = createServer()
  const answered = answerWithProcessId(server)
  let path: ShortPath | undefined
  try {
    path = shortPathOf(directory)
    const newName = `${newNamePrefix}${process.pid}.${randomBytes(4).toString('hex')}`
    try {
      await listen(server, join(path.directory, newName))
      const number = await takeNumber(directory, path.directory, newName)
      await removeOldNames(path.directory, number)
    } finally {
      rmSync(join(path.directory, newName), { force: true })
    }
  } catch (error) {
    await closeServer(server, answered)
    if (error instanceof SunwiseError) throw error
    const message = `Cannot lock the data directory "${directory}": ${error instanceof Error ? error.message : String(error)}`
    throw new SunwiseError('DIRECTORY_UNUSABLE', message, { cause: error })
  } finally {
    path?.dispose()
  }
  server.unref()
  let released: Promise<void> | undefined
  return {
    release: () => {
      released ??= closeServer(server, answered)
      return released
    },
  }
}

/** Process id of the holder of a directory as text, or `unknown` if it does not tell; undefined if nobody holds it. */
export async function holderOf(directory: string): Promise<string | undefined> {
  if (!existsSync(directory)) return undefined
  const path = shortPathOf(directory)
  try {
    const highest = highestNumber(path.directory)
    return highest === 0 ? undefined : await askHolder(join(path.directory, `lock.${highest}`))
  } finally {
    path.dispose()
  }
}

/** Gives the next number to the socket `newName`; returns the number. */
async function takeNumber(directory: string, path: string, newName: string): Promise<number> {
  for (let tries = 0; tries < triesMax; tries++) {
    const highest = highestNumber(path)
    const holder = highest === 0 ? undefined : await askHolder(join(path, `lock.${highest}`))
    if (holder !== undefined) throw locked(directory, holder)
    const own = highest + 1
    if (!tryLink(join(path, newName), join(path, `lock.${own}`))) continue
    if (highestNumber(path) === own) return own
    // Ours was given out once before; the list that it came from was old. It is not the highest, so it may go.
    rmSync(join(path, `lock.${own}`), { force: true })
  }
  throw locked(directory, unknownHolder)
}

function locked(directory: string, holder: string): SunwiseError {
  const who =
    holder === unknownHolder
      ? 'another process'
      : holder === String(process.pid)
        ? `this process (${holder})`
        : `process ${holder}`
  return new SunwiseError('DIRECTORY_LOCKED', `The data directory "${directory}" is in use by ${who}; stop that first`)
}

/** The highest number in use as a name; 0 if there is none. */
function highestNumber(path: string): number {
  let highest = 0
  for (const name of readdirSync(path)) highest = Math.max(highest, Number(namePattern.exec(name)?.[1] ?? 0))
  return highest
}

/**
 * True if this call made the name; false if it was there, or if `existing` is gone: a new holder takes away sockets on which
 * nobody listens, and one that is just being made looks like that for a moment.
 */
function tryLink(existing: string, name: string): boolean {
  try {
    linkSync(existing, name)
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'EEXIST' || error.code === 'ENOENT')) return false
    throw error
  }
}

/**
 * Removes what earlier holders left. The name below the own stays, so that a starter which lists the directory during two
 * changes of holder still meets one of the names. Of the sockets that have no number yet, those go on which nobody listens.
 */
async function removeOldNames(path: string, own: number): Promise<void> {
  for (const name of readdirSync(path)) {
    const number = Number(namePattern.exec(name)?.[1] ?? own)
    const isOld = number < own - 1
    const isAbandoned = name.startsWith(newNamePrefix) && (await askHolder(join(path, name))) === undefined
    if (isOld || isAbandoned) rmSync(join(path, name), { force: true })
  }
}

/** The process id that the listener on a socket answers; undefined if nobody listens. */
function askHolder(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection(path)
    let answer = ''
    const finish = (result: string | undefined): void => {
      socket.destroy()
      resolve(result)
    }
    // A listener that is too busy to answer is alive all the same: the kernel has accepted for it.
    socket.setTimeout(answerMsMax, () => finish(unknownHolder))
    socket.on('data', (bytes) => {
      answer = (answer + bytes.toString('latin1')).slice(0, 20)
    })
    socket.on('end', () => finish(/^[0-9]+$/.test(answer) ? answer : unknownHolder))
    socket.on('error', (error) => {
      // Only these two say that nobody listens. A full backlog (EAGAIN) or a foreign owner (EACCES) says the contrary.
      const code = 'code' in error ? error.code : undefined
      finish(code === 'ECONNREFUSED' || code === 'ENOENT' ? undefined : unknownHolder)
    })
  })
}

/** Answers every connection with the process id. Returns the connections that are open. */
function answerWithProcessId(server: Server): Set<Socket> {
  const open = new Set<Socket>()
  server.on('connection', (socket) => {
    open.add(socket)
    socket.unref()
    socket.on('error', () => socket.destroy())
    socket.on('close', () => open.delete(socket))
    socket.setTimeout(answerMsMax, () => socket.destroy())
    socket.end(String(process.pid))
  })
  return open
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

function closeServer(server: Server, open: ReadonlySet<Socket>): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve())
    for (const socket of open) socket.destroy()
  })
}

type ShortPath = { readonly directory: string; readonly dispose: () => void }

/**
 * A path to the directory that is short enough for a socket address. It is needed only while connecting or binding. A long path
 * is replaced by that of an open descriptor (Linux), or else by a symbolic link in the system's temporary directory.
 */
export function shortPathOf(directory: string, descriptors: string = '/proc/self/fd'): ShortPath {
  if (Buffer.byteLength(directory) <= directoryBytesMax) return { directory, dispose: () => {} }
  if (existsSync(descriptors)) {
    const descriptor = openSync(directory, modes.O_RDONLY | modes.O_DIRECTORY)
    return { directory: `${descriptors}/${descriptor}`, dispose: () => closeSync(descriptor) }
  }
  const parent = mkdtempSync(join(tmpdir(), 'sunwise-'))
  const link = join(parent, 'd')
  symlinkSync(resolvePath(directory), link)
  return { directory: link, dispose: () => rmSync(parent, { recursive: true, force: true }) }
}
