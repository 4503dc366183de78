// @ts-check
import { open } from "./opening.js";

open((address) => location.replace(address));
