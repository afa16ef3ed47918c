/* STM32F446 on a Nucleo-64: 168 MHz from the programmer's 8 MHz, what is connected to what. */
#include "chip.h"

#include "fw_internal.h"

#define WAIT 200000u /* turns; some ms */
#define PRIORITY 0x40u

uint32_t chip_words[2u * WORDS_MS];
uint8_t chip_rx[RX_SIZE];

static bool wait_for(volatile const uint32_t *reg, uint32_t bits)
{
    uint32_t turns = 0;
    while (((*reg & bits) != bits) && (turns < WAIT)) {
        turns++;
    }
    return (*reg & bits) == bits;
}

/* 2 MHz into the PLL, 336 MHz, half of it: no over-drive needed (6.3.2, 5.1.3). */
static bool clock_start(void)
{
    RCC_CR |= (1u << 18); /* bypass: a clock comes in, no crystal */
    RCC_CR |= (1u << 16);
    bool outside = wait_for(&RCC_CR, 1u << 17);
    uint32_t divider = outside ? 4u : 8u; /* 8 MHz outside, 16 MHz inside */
    FLASH_ACR = 0x705u;                   /* 5 wait states, prefetch, caches */
    RCC_PLLCFGR = (7u << 24) | (2u << 28) | (outside ? (1u << 22) : 0u) | (168u << 6) | divider;
    RCC_CFGR = (5u << 10) | (4u << 13); /* APB1 / 4, APB2 / 2 */
    RCC_CR |= (1u << 24);
    if (wait_for(&RCC_CR, 1u << 25)) {
        RCC_CFGR |= 2u;
        uint32_t turns = 0;
        while (((RCC_CFGR & 0x0Cu) != 0x08u) && (turns < WAIT)) {
            turns++;
        }
    }
    return outside;
}

/* mode: 0 input, 1 output, 2 alternate function, 3 analog; pull: 0 none, 1 up, 2 down */
static void pin_mode(uint32_t port, uint32_t pin, uint32_t mode, uint32_t pull)
{
    uint32_t at = 2u * pin;
    REG32(port + GPIO_PUPDR) = (REG32(port + GPIO_PUPDR) & ~(3u << at)) | (pull << at);
    REG32(port + GPIO_OSPEEDR) = (REG32(port + GPIO_OSPEEDR) & ~(3u << at)) | (1u << at);
    REG32(port + GPIO_MODER) = (REG32(port + GPIO_MODER) & ~(3u << at)) | (mode << at);
}

static void pin_function(uint32_t port, uint32_t pin, uint32_t function, uint32_t pull)
{
    uint32_t address = port + GPIO_AFRL + 4u * (pin / 8u);
    uint32_t at = 4u * (pin % 8u);
    REG32(address) = (REG32(address) & ~(15u << at)) | (function << at);
    pin_mode(port, pin, 2, pull);
}

static void pins_start(void)
{
    static const uint8_t UP_A[] = {9, 10, 11, 12};
    static const uint8_t UP_B[] = {3, 4, 5, 8, 9, 10, 12, 13, 14, 15};
    RCC_AHB1ENR |= 7u | (3u << 21); /* ports A to C, both DMA */
    REG32(GPIOC + GPIO_BSRR) = 0xFFFF0000u;
    chip_pin(GPIOB, ENABLE_PIN, false);
    for (uint32_t pin = 0; pin <= GATE_PIN; pin++) {
        pin_mode(GPIOC, pin, 1, 2);
    }
    pin_mode(GPIOB, ENABLE_PIN, 1, 2);
    pin_mode(GPIOB, ALIVE_PIN, 1, 2);
    pin_mode(GPIOA, LED_PIN, 1, 0);
    pin_mode(GPIOB, 1, 0, 2); /* interlock: a broken wire is a missing permit */
    /* switches to ground that open when pressed: a broken wire is a pressed switch */
    for (uint32_t i = 0; i < sizeof UP_A; i++) {
        pin_mode(GPIOA, UP_A[i], 0, 1);
    }
    for (uint32_t i = 0; i < sizeof UP_B; i++) {
        pin_mode(GPIOB, UP_B[i], 0, 1);
    }
    pin_mode(GPIOA, 4, 3, 0);     /* DAC */
    pin_function(GPIOA, 8, 1, 0);    /* PWM, TIM1 */
    pin_function(GPIOA, 2, 7, 1);    /* USART2 */
    pin_function(GPIOA, 3, 7, 1);
    pin_function(GPIOA, 0, 1, 1);    /* encoders: TIM2, TIM3, TIM4 */
    pin_function(GPIOA, 1, 1, 1);
    pin_function(GPIOA, 6, 2, 1);
    pin_function(GPIOA, 7, 2, 1);
    pin_function(GPIOB, 6, 2, 1);
    pin_function(GPIOB, 7, 2, 1);
}

static void encoder_start(uint32_t timer)
{
    REG32(timer + TIM_ARR) = 0xFFFFFFFFu;
    REG32(timer + TIM_CCMR1) = 0x3131u; /* both inputs, each level for 8 clocks */
    REG32(timer + TIM_SMCR) = 3;        /* all four edges */
    REG32(timer + TIM_CR1) = 1;
}

static void power_start(void)
{
    REG32(TIM1 + TIM_ARR) = 8191; /* 168 MHz / 8192 = 20.5 kHz */
    REG32(TIM1 + TIM_CCR1) = 0;
    REG32(TIM1 + TIM_CCMR1) = 0x68; /* PWM mode 1, preloaded */
    REG32(TIM1 + TIM_CCER) = 1;
    REG32(TIM1 + TIM_BDTR) = 1u << 15;
    REG32(TIM1 + TIM_EGR) = 1;
    REG32(TIM1 + TIM_CR1) = 1;
    DAC_CR = 1;
    DAC_DHR12R1 = 0;
}

static void uart_start(void)
{
    USART2_BRR = 46; /* 42 MHz / 46 = 913 kbit/s, 0.9 % below 921600 */
    REG32(DMA1 + DMA_PAR(5u)) = USART2_DR_ADDRESS;
    REG32(DMA1 + DMA_M0AR(5u)) = (uint32_t)(uintptr_t)chip_rx;
    REG32(DMA1 + DMA_NDTR(5u)) = RX_SIZE;
    REG32(DMA1 + DMA_CR(5u)) = (4u << 25) | (1u << 10) | (1u << 8) | 1u; /* ring */
    REG32(DMA1 + DMA_PAR(6u)) = USART2_DR_ADDRESS;
    USART2_CR3 = 0xC0; /* DMA both ways */
    USART2_CR1 = (1u << 13) | (1u << 4) | 0x0Cu; /* on, interrupt when the line falls idle */
    nvic_enable(IRQ_USART2, PRIORITY);
    nvic_enable(IRQ_DMA1_STREAM6, PRIORITY);
}

bool chip_start(void)
{
    bool outside = clock_start();
    RCC_APB1ENR |= 7u | (1u << 17) | (1u << 29);            /* TIM2 to 4, USART2, DAC */
    RCC_APB2ENR |= 3u | (1u << 8);                          /* TIM1, TIM8, ADC1 */
    pins_start();
    encoder_start(TIM2);
    encoder_start(TIM3);
    encoder_start(TIM4);
    power_start();
    uart_start();
    return outside;
}

/* TIM8 asks DMA2 stream 1 (channel 7) for one word each 2.5 us. */
void chip_steps_start(void)
{
    REG32(DMA2 + DMA_PAR(1u)) = GPIOC + GPIO_BSRR;
    REG32(DMA2 + DMA_M0AR(1u)) = (uint32_t)(uintptr_t)chip_words;
    REG32(DMA2 + DMA_NDTR(1u)) = 2u * WORDS_MS;
    /* channel 7, highest priority, words, ring, to the outside, both interrupts */
    REG32(DMA2 + DMA_CR(1u)) = (7u << 25) | (3u << 16) | (2u << 13) | (2u << 11) | (1u << 10) |
                               (1u << 8) | (1u << 6) | (3u << 3) | 1u;
    nvic_enable(IRQ_DMA2_STREAM1, PRIORITY);
    REG32(TIM8 + TIM_ARR) = 419; /* 168 MHz / 420 = 400 kHz */
    REG32(TIM8 + TIM_DIER) = 1u << 8;
    REG32(TIM8 + TIM_CR1) = 1;
}

/* 25 ms at 32 kHz; the oscillator may be anywhere from 17 to 47 kHz: 17 to 47 ms. */
void chip_watchdog_start(void)
{
    IWDG_KR = 0x5555u;
    IWDG_PR = 0;
    IWDG_RLR = 200;
    IWDG_KR = 0xCCCCu;
}

/* Noise of the temperature sensor's last bits, and the chip's own number. The F446 has no
 * random number generator; a boot nonce needs to differ, not to be secret. */
uint32_t chip_entropy(void)
{
    uint8_t bytes[12u + 128u];
    uint8_t *p = bytes;
    ADC_CCR = (1u << 23) | (1u << 16);
    ADC1_SMPR1 = 0; /* shortest: as much noise as there is */
    ADC1_SQR3 = 18;
    ADC1_CR2 = 1;
    for (uint32_t i = 0; i < 64u; i++) {
        ADC1_CR2 = 1u | (1u << 30);
        (void)wait_for(&ADC1_SR, 2u);
        p = fw_put16(p, ADC1_DR);
    }
    for (uint32_t i = 0; i < 3u; i++) {
        p = fw_put32(p, REG32(UNIQUE_ID + 4u * i));
    }
    ADC1_CR2 = 0;
    return fw_crc32(bytes, sizeof bytes);
}

bool chip_sending(void)
{
    return (REG32(DMA1 + DMA_CR(6u)) & 1u) != 0u;
}

void chip_send(const uint8_t *bytes, uint32_t n)
{
    REG32(DMA1 + DMA_HIFCR) = 0x3Du << 16;
    REG32(DMA1 + DMA_M0AR(6u)) = (uint32_t)(uintptr_t)bytes;
    REG32(DMA1 + DMA_NDTR(6u)) = n;
    /* channel 4, from memory, interrupt when done */
    REG32(DMA1 + DMA_CR(6u)) = (4u << 25) | (1u << 10) | (1u << 6) | (1u << 4) | 1u;
}
