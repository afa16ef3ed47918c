/* Chip set-up of the Nucleo port; pins in docs/how-to/flash-the-firmware.md. */
#ifndef LMD_CHIP_H
#define LMD_CHIP_H

#include <stdbool.h>
#include <stdint.h>

#include "stm32f446.h"

#define STEP_PIN 0u /* port C, axis k at pin STEP_PIN + k */
#define DIR_PIN 6u
#define GATE_PIN 12u
#define ENABLE_PIN 0u /* port B */
#define ALIVE_PIN 2u  /* port B: toggles each ms, for a watchdog outside */
#define LED_PIN 5u    /* port A */

#define WORDS_MS 400u /* step words in 1 ms: one each 2.5 us */
#define RX_SIZE 4096u /* FW_RX_WINDOW */
#define TX_SIZE 4096u

extern uint32_t chip_words[2u * WORDS_MS]; /* what goes to the pins of port C, played in a ring */
extern uint8_t chip_rx[RX_SIZE];

/* Clock, pins, timers, DMA, UART; all outputs off. False: no 8 MHz from the programmer, the
 * inner oscillator (1 %) is used. */
bool chip_start(void);
void chip_steps_start(void);
void chip_watchdog_start(void);
static inline void chip_watchdog_feed(void)
{
    IWDG_KR = 0xAAAAu;
}
uint32_t chip_entropy(void);
void chip_send(const uint8_t *bytes, uint32_t n); /* until chip_sending() is over they stay */
bool chip_sending(void);

static inline void chip_pin(uint32_t port, uint32_t pin, bool on)
{
    REG32(port + GPIO_BSRR) = on ? (1u << pin) : (1u << (pin + 16u));
}

/* Received so far in the ring. */
static inline uint32_t chip_rx_at(void)
{
    return RX_SIZE - REG32(DMA1 + DMA_NDTR(5u));
}

#endif
