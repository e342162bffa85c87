/**
 * The lock of a data directory: a Unix socket in it that the holder listens on (Node has no flock). Whoever wants the lock
 * connects first; an answer is the holder's process id, a refused connection a socket left by a dead process.
 *
 * Two starters that both find a dead socket: each links its own listening socket under the one name, and `link` lets exactly
 * one win; before that each moves the dead one away by a rename that only one of them can do.
 */
import { randomBytes } from 'node:crypto'
import { linkSync, readlinkSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { createConnection, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SunwiseError } from '../base/errors.ts'

const lockName = 'lock'
const answerMsMax = 2_000
const triesMax = 5
/** Longest path that a Unix socket address holds, with room for a name. */
const socketPathMax = 80

export type DirectoryLock = {
  /** Gives the directory free. */
  release(): Promise<void>
}

/** Locks a directory. Rejects with DIRECTORY_LOCKED, naming the holder. */
export async function acquireDirectoryLock(directory: string): Promise<DirectoryLock> {
  const short = shortPathOf(directory)
  const path = join(short.path, lockName)
  const own = join(short.path, `${lockName}.${process.pid}.${randomBytes(3).toString('hex')}`)
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy())
    socket.end(String(process.pid))
  })
  try {
    await listen(server, own)
    for (let tries = 0; tries < triesMax; tries++) {
      if (tryLink(own, path)) {
        rmSync(own, { force: true })
        const inode = statSync(path).ino
        server.unref()
        return {
          release: async () => {
            if (isSameFile(path, inode)) rmSync(path, { force: true })
            await new Promise<void>((resolve) => server.close(() => resolve()))
            short.dispose()
          },
        }
      }
      const inode = statSync(path, { throwIfNoEntry: false })?.ino
      const holder = await askHolder(path)
      if (holder !== undefined) {
        throw new SunwiseError(
          'DIRECTORY_LOCKED',
          `The data directory "${directory}" is in use by process ${holder}; stop it first`,
        )
      }
      if (inode !== undefined) moveDeadAway(path, inode)
    }
    throw new SunwiseError('DIRECTORY_LOCKED', `The data directory "${directory}" is being locked by others; try again`)
  } catch (error) {
    server.close()
    rmSync(own, { force: true })
    short.dispose()
    if (error instanceof SunwiseError) throw error
    throw new SunwiseError('DIRECTORY_UNUSABLE', `Cannot lock the data directory "${directory}": ${String(error)}`, {
      cause: error,
    })
  }
}

/** The process that holds a directory, if any: for `doctor`. */
export async function holderOf(directory: string): Promise<string | undefined> {
  const short = shortPathOf(directory)
  try {
    return await askHolder(join(short.path, lockName))
  } finally {
    short.dispose()
  }
}

/** A path short enough for a socket address: the directory itself, or a link to it in the system's temporary directory. */
function shortPathOf(directory: string): { readonly path: string; readonly dispose: () => void } {
  if (directory.length <= socketPathMax) return { path: directory, dispose: () => {} }
  const link = join(tmpdir(), `sunwise-${process.pid}-${randomBytes(4).toString('hex')}`)
  symlinkSync(directory, link)
  const isOurs = (): boolean => readlinkSync(link) === directory
  return { path: link, dispose: () => (isOurs() ? rmSync(link, { force: true }) : undefined) }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, () => resolve())
  })
}

/** Gives our socket the lock's name; false if the name is taken. */
function tryLink(own: string, path: string): boolean {
  try {
    linkSync(own, path)
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false
    throw error
  }
}

function isSameFile(path: string, inode: number): boolean {
  return statSync(path, { throwIfNoEntry: false })?.ino === inode
}

/** The process id that the holder of a socket answers; undefined if nobody listens on it. */
function askHolder(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection(path)
    let answer = ''
    const finish = (result: string | undefined): void => {
      socket.destroy()
      resolve(result)
    }
    // A holder that does not answer in time is alive all the same: its socket accepts.
    socket.setTimeout(answerMsMax, () => finish('unknown'))
    socket.on('data', (bytes) => {
      answer += bytes.toString()
    })
    socket.on('end', () => finish(answer === '' ? 'unknown' : answer))
    socket.on('error', (error: NodeJS.ErrnoException) => {
      finish(error.code === 'ECONNREFUSED' || error.code === 'ENOENT' ? undefined : 'unknown')
    })
  })
}

/**
 * Takes the dead socket with this inode off the lock's name. If another starter did so first and holds the name now, its
 * socket is put back.
 */
function moveDeadAway(path: string, inode: number): void {
  const aside = `${path}.dead.${process.pid}.${randomBytes(3).toString('hex')}`
  try {
    renameSync(path, aside)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return
    throw error
  }
  if (!isSameFile(aside, inode)) tryLink(aside, path)
  rmSync(aside, { force: true })
}
