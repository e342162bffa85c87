/** The program `sunwise`: connects the command line with the real process. Everything else stands in cli/. */
import { deepCheck } from './cli/deep-check.ts'
import { runCommandLine } from './cli/program.ts'
import type { StartServer } from './cli/start-command.ts'
import type { Terminal } from './cli/terminal.ts'

const terminal: Terminal = {
  environment: process.env,
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  onSignal: (listener) => {
    process.on('SIGINT', listener)
    process.on('SIGTERM', listener)
    return () => {
      process.off('SIGINT', listener)
      process.off('SIGTERM', listener)
    }
  },
  exit: (code) => process.exit(code),
}

// A reader that went away (`sunwise ls | head`) ends the program quietly, but not as a success.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => process.exit(1))

// A process that another one holds by a channel, as `dev --nodes` does, stops when that one is gone.
if (process.channel !== undefined) process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'))

/** The server is loaded only by the commands that run one. */
const startServer: StartServer = async (options) => {
  const { startServer: start } = await import('./host/server.ts')
  return start(options)
}

const code = await runCommandLine(process.argv.slice(2), terminal, { startServer, deepCheck })
// Output to a pipe may still be under way where writes to pipes are asynchronous.
await new Promise((resolve) => process.stdout.write('', resolve))
process.exit(code)
