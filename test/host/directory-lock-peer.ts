/**
 * A process that competes for a directory: `node directory-lock-peer.ts DIRECTORY`. Reads lines from its standard input: `take`
 * answers `held` or the code and message of the refusal, `release` answers `released`. Ends with its input.
 */
import { createInterface } from 'node:readline'
import { SunwiseError } from '../../src/base/errors.ts'
import { acquireDirectoryLock, type DirectoryLock } from '../../src/host/directory-lock.ts'

const directory = process.argv[2] ?? ''
let lock: DirectoryLock | undefined

for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'take') {
    try {
      lock = await acquireDirectoryLock(directory)
      console.log('held')
    } catch (error) {
      console.log(error instanceof SunwiseError ? `${error.code} ${error.message}` : String(error))
    }
  } else if (line === 'release') {
    await lock?.release()
    console.log('released')
  } else if (line === 'ready') {
    console.log('ready')
  }
}
