/** All rows in the order in which they are measured and reported. */
import type { Row } from './case.ts'
import { row as e1a } from './rows/e1a.ts'
import { row as e1b } from './rows/e1b.ts'
import { row as e3 } from './rows/e3.ts'
import { row as e9 } from './rows/e9.ts'
import { row as h1 } from './rows/h1.ts'
import { row as h2 } from './rows/h2.ts'
import { row as h3 } from './rows/h3.ts'
import { row as l2 } from './rows/l2.ts'
import { row as m1 } from './rows/m1.ts'
import { row as t1 } from './rows/t1.ts'
import { row as t2 } from './rows/t2.ts'

export const rows: readonly Row[] = [e1a, e1b, e3, e9, t1, t2, h1, h2, h3, l2, m1]
